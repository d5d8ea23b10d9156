"""Connections of tasks to what their owner allows, by way of the node."""

from manta.node.outbound.ways import Totals as Totals
from manta.node.outbound.ways import Ways as Ways
