"""Collectives between the instances of a task: through their nodes' planes, or the manager."""
