"""The plane: the node's process in which tasks exchange with those of other nodes."""
