"""Bulk between two peers: byte ranges from memory to memory, sealed, with credit and resumption."""
