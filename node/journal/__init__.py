"""What a node has to tell its manager, kept until that is acknowledged."""
