"""Tests with real processes from end to end: our server, real kernels, our client."""
