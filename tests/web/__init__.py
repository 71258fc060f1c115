"""Tests of the door, the application and the operations, over real sockets."""
