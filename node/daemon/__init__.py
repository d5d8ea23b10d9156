"""Nodes' daemons: the process itself, and what starts, watches and stops it from outside."""
