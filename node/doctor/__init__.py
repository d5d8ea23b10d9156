"""The checks of `manta_node doctor`. They change nothing."""
