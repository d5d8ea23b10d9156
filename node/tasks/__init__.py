"""One task's life on a node."""
