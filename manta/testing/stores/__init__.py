"""Stores for tests: one in memory, and one that fails when told to."""
