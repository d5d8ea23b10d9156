"""A node's configuration."""

from manta.node.config.reading import (
    NAME,
    SCHEMA,
    NodeConfig,
    host_name,
    instance,
    line_of,
    load,
    parse,
    render,
    toml_key,
    toml_value,
)

__all__ = [
    "NAME",
    "SCHEMA",
    "NodeConfig",
    "host_name",
    "instance",
    "line_of",
    "load",
    "parse",
    "render",
    "toml_key",
    "toml_value",
]
