"""Kernels for tests, and what is asked of every kernel."""
