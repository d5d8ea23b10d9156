"""A manager and nodes on this machine."""
