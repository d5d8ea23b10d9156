"""Passwords, tokens, principals, roles and rights."""
