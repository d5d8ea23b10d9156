"""The Unix socket that tasks talk to their node over."""
