"""A node's configuration."""

from manta.node.config.described import Described
from manta.node.config.handed_over import become_clean, environment, hand_over
from manta.node.config.reading import converted, load, parse
from manta.node.config.schema import (
    FIELDS,
    KEYS,
    NOUNS,
    PREFIX,
    Key,
    NodeConfig,
    instance,
)
from manta.node.config.toml import in_force, line_of, render, toml_lines, toml_value
from manta.node.config.values import NAME, host_name

__all__ = [
    "FIELDS",
    "KEYS",
    "NAME",
    "NOUNS",
    "PREFIX",
    "Described",
    "Key",
    "NodeConfig",
    "become_clean",
    "converted",
    "environment",
    "hand_over",
    "host_name",
    "in_force",
    "instance",
    "line_of",
    "load",
    "parse",
    "render",
    "toml_lines",
    "toml_value",
]
