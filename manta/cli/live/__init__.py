"""Shows a running swarm."""
