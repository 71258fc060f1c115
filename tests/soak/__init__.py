"""The soak: random clients, kernels and faults for a while, and then an audit (``nox -s soak``)."""
