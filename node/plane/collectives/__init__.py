"""Collectives between the planes of nodes: their machines, fed and carried out."""
