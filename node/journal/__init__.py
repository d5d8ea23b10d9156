"""What a node reports to its manager, kept until it is acknowledged."""
