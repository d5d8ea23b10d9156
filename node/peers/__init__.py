"""The node's peers: where it listens for them, and what the manager told of them."""
