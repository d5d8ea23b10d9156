"""Peers that talk to each other with no manager."""
