"""What a node has to offer: its machine, and the datasets that its operator maps."""
