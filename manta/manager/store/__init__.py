"""Stores the manager's records, event logs and log lines."""
