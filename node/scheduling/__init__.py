"""What a node is to run, whether it has room for it, and where it runs."""
