"""Supervised actors, near and far."""
