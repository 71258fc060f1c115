"""Benchmarks, run by ``nox -s bench``: figures, and their ratios to floors of the same run."""
