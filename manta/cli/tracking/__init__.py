"""Metrics that are sent to a tracker of experiments."""
