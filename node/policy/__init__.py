"""What a node's owner allows: rules, what was asked and decided, and the code that asks."""
