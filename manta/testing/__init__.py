"""Helpers for tests: of Manta, and of swarms."""
