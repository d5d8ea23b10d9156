"""Daemons of nodes: the process itself, and what starts, watches and stops it from outside."""
