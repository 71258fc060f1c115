"""Kallichore: a headless supervisor for Jupyter kernels.

Importing the package costs next to nothing: the server's guardian forks before anything heavy is
loaded. The pieces for users are `kallichore.client` and the commands ``kcserver`` and ``kcclient``.
"""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
