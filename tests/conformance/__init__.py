"""Suites that a real thing and its fake must both pass."""
