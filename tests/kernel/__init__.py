"""One life of a kernel."""
