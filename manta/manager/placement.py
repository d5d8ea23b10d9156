"""Which nodes run a task: one function for deploying, checking and explaining."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from manta.protocol.node import Capabilities, Load
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import Plan, Verdict


@dataclass(frozen=True)
class NodeView:
    """What placement knows of a node. `assigned` counts the attempts it holds, of all swarms."""

    id: str
    alias: str
    capabilities: Capabilities
    connected: bool = True
    draining: bool = False
    assigned: int = 0
    load: Load = Load()


@dataclass(frozen=True)
class Demand:
    """A task of one iteration that wants nodes.

    within     nodes (ids or aliases) that schedule_next_iter named for it; empty: any
    kept       nodes of its first iteration, when the task is `fixed`
    previous   nodes that ran it in the previous iteration: their runtime is warm
    producers  nodes that wrote the result that its method `tag-<t>` names
    replace    only these instances, anew; empty: the whole task
    avoid      nodes to take last: it failed there, or they run its other instances
    before     fractions and counts of the random tasks that come before it in the swarm
    """

    task: TaskSpec
    module: ModuleSpec
    iteration: int
    seed: int
    within: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    replace: tuple[int, ...] = ()
    avoid: tuple[str, ...] = ()
    before: tuple[int | float, ...] = ()


class Placement(msgspec.Struct, frozen=True, array_like=True):
    index: int
    node_id: str
    node_alias: str


@dataclass(frozen=True)
class Outcome:
    """Either placements, or problems: sentences that name the task and the remedy."""

    placements: tuple[Placement, ...]
    verdicts: tuple[Verdict, ...]
    problems: tuple[str, ...]


def place(demand: Demand, nodes: Sequence[NodeView]) -> Outcome:
    raise NotImplementedError


def check(spec: SwarmSpec, nodes: Iterable[NodeView]) -> Plan:
    """Place the first iteration of a swarm as if all its tasks started now."""
    raise NotImplementedError
