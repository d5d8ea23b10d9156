"""Handles the messages that come from nodes and users."""
