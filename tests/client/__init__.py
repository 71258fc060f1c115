"""Tests of `kallichore.client`, against a server that answers as it is told."""
