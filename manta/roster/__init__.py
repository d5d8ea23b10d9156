"""What follows from a swarm's roster: who may talk to whom, and which waits can never end. Pure."""
