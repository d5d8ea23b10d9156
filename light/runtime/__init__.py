"""The processes of a task on a node: the runtime, its worker and their attempts."""
