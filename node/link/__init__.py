"""The node's link to its manager."""
