"""Audit logs: what was done, in an order that nobody changes unseen."""
