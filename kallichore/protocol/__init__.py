"""The pure core: what messages mean and what follows from them. No I/O, no clock, no randomness."""
