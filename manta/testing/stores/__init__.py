"""Stores for tests: in memory, and one that fails."""
