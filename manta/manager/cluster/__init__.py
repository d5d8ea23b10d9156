"""A cluster: its nodes, and what each of them is to run."""
