"""Serves tasks over a Unix socket: the node's side of `manta.light.wire`."""
