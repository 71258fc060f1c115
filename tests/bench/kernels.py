"""The kernels that benchmarks run, as command lines."""

from __future__ import annotations

import sys
from typing import Final

FAKE: Final = [sys.executable, "-m", "tests.bench.fake_kernel", "{connection_file}"]
IPYKERNEL: Final = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
FAKE_ON_LIBZMQ: Final = [*FAKE, "libzmq"]
"""Its iopub is a real PUB socket, for what must not depend on how fast the kernel is."""
