"""Profiles, keys, and the link to the manager."""
