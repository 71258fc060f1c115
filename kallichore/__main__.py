"""``python -m kallichore``: the same as the command ``kcserver``."""

from __future__ import annotations

from kallichore.cli import main

main()
