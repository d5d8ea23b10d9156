"""From a swarm as it is written to what is sent to the manager."""
