"""A node's configuration."""

from manta.node.config.reading import converted, load, parse
from manta.node.config.schema import KEYS, NAME, NOUNS, PREFIX, Key, NodeConfig, host_name, instance
from manta.node.config.toml import line_of, render, toml_lines, toml_value

__all__ = [
    "KEYS",
    "NAME",
    "NOUNS",
    "PREFIX",
    "Key",
    "NodeConfig",
    "converted",
    "host_name",
    "instance",
    "line_of",
    "load",
    "parse",
    "render",
    "toml_lines",
    "toml_value",
]
