"""The gate that fails closed: somebody else's target in a process of its own, judged by one that it cannot end."""
