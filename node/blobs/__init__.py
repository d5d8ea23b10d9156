"""Blobs on a node."""
