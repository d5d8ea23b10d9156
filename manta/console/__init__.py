"""What the commands `manta` and `manta_node` share: exit codes, signals, screens, tables, JSON."""
