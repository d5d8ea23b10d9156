"""A swarm: its machine, and the actor that owns it."""
