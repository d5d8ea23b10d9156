"""Ways to run a task's process."""
