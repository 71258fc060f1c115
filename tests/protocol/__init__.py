"""The pure core: plain functions, no clock, no I/O."""
