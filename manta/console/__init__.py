"""What both commands, `manta` and `manta_node`, show and how: exit codes, screens, tables, JSON."""
