"""The manta command."""
