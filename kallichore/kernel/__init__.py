"""One life of a kernel: its process, its sockets, its connection."""
