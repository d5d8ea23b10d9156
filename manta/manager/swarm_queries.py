"""What users and nodes may read of a swarm. Signatures first; the bodies follow."""

from __future__ import annotations

from collections.abc import Sequence

from manta.manager.placement import NodeView
from manta.manager.swarm_machine import SwarmMachine
from manta.protocol.node import ResultEntries
from manta.protocol.user import FeedName, FeedPage, Plan, SwarmInfo, TaskInfo


def info(machine: SwarmMachine) -> SwarmInfo:
    raise NotImplementedError


def tasks(machine: SwarmMachine, iteration: int | None = None) -> tuple[TaskInfo, ...]:
    """Every attempt, in the order of iteration, graph, index and attempt."""
    raise NotImplementedError


def page(
    machine: SwarmMachine, feed: FeedName, after: int, limit: int = 1000, tag: str | None = None
) -> FeedPage:
    """Of the feeds results, metrics and events; logs are the store's. Never waits."""
    raise NotImplementedError


def select_results(machine: SwarmMachine, tag: str, iteration: int) -> ResultEntries:
    """For tasks: only what counts, by alias and index."""
    raise NotImplementedError


def explain(machine: SwarmMachine, nodes: Sequence[NodeView]) -> Plan:
    """Where each task of this iteration runs, or why it does not, node by node."""
    raise NotImplementedError
