"""What is read of a swarm."""
