"""The manager: places the tasks of swarms on the nodes of clusters."""
