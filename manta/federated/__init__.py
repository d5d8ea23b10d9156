"""The side of federated learning that runs with whoever starts a swarm."""
