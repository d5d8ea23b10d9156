"""Which nodes run which task, or why none does."""
