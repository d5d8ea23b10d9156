"""Typed messages between manager, node and SDK."""
