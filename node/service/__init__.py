"""One node in this process."""

from manta.node.service.node import Node

__all__ = ["Node"]
