"""What is shown while a swarm runs."""
