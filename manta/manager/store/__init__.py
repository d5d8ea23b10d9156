"""Where the manager keeps its event log and state."""
