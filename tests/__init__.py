"""The tests of Kallichore, one module per module."""
