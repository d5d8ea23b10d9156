"""What a task asks of nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from manta.manager.placement.names import ids_of
from manta.manager.placement.nodes import NodeView
from manta.protocol.spec import ModuleSpec, ResourceSpec, SwarmSpec, TaskSpec


@dataclass(frozen=True)
class Demand:
    """A task of one iteration that wants nodes.

    within     nodes (ids or aliases) that schedule_next_iter named for it; empty: any
    kept       nodes of its first iteration, when the task is `fixed`
    previous   nodes that ran it in the previous iteration: their runtime is warm
    producers  nodes that wrote the result which its method `tag-<t>` names
    replace    only these instances, anew; empty: the whole task
    avoid      nodes to take last: it failed there, or they run its other instances
    before     maximums of the random tasks that come before it in the swarm
    holding    the swarm's own attempts by node
    """

    task: TaskSpec
    module: ModuleSpec
    iteration: int = 0
    seed: int = 0
    within: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    previous: tuple[str, ...] = ()
    producers: tuple[str, ...] = ()
    replace: tuple[int, ...] = ()
    avoid: tuple[str, ...] = ()
    before: tuple[int | float, ...] = ()
    holding: dict[str, int] = field(default_factory=dict)


def by_id(demand: Demand, nodes: Sequence[NodeView]) -> Demand:
    """With ids wherever it names nodes."""
    task = demand.task
    only, but = task.specified_ids, task.excepted_ids
    if not (only or but or demand.within):
        return demand
    task = msgspec.structs.replace(
        task,
        specified_ids=None if only is None else ids_of(only, nodes),
        excepted_ids=None if but is None else ids_of(but, nodes),
    )
    return replace(demand, task=task, within=ids_of(demand.within, nodes))


def datasets_of(task: TaskSpec, module: ModuleSpec) -> tuple[str, ...]:
    """What the module and the task declare, each once."""
    return tuple(dict.fromkeys((*module.datasets, *task.datasets)))


def resources_of(task: TaskSpec, module: ModuleSpec) -> ResourceSpec | None:
    return task.resources or module.resources


def tag_of(task: TaskSpec) -> str | None:
    """The <t> of the method `tag-<t>`."""
    return task.method[4:] if task.method.startswith("tag-") else None


def random_before(spec: SwarmSpec, alias: str) -> tuple[int | float, ...]:
    """Maximums of the random tasks that come before this one: `Demand.before`."""
    maximums = []
    for task in spec.tasks:
        if task.alias == alias:
            break
        if task.method == "random":
            maximums.append(task.maximum)
    return tuple(maximums)
