"""The command `manta_node`."""
