"""Machines with which peers of a mesh divide work and agree on who leads. Each is pure."""
