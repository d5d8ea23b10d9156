"""Collectives among peers, as pure machines: what is sent, reduced and delivered, and when."""
