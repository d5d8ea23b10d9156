"""What a task asks of nodes."""

from __future__ import annotations

from dataclasses import dataclass, field

from manta.protocol.gpus import GpuDemand, demand
from manta.protocol.spec import ModuleSpec, TaskSpec, resources_of


@dataclass(frozen=True)
class Demand:
    """A task of one iteration, and what its placement depends on.

    within     nodes (ids or aliases) that schedule_next_iter named for it; empty: any
    kept       nodes of its first iteration, when the task is `fixed`
    previous   nodes that ran it in the previous iteration: their runtime is warm
    producers  nodes that wrote the result which its method `tag-<t>` names
    replace    only these instances, again; empty: the whole task
    avoid      nodes to take last: it failed there, or they run its other instances
    before     maximums of the random tasks that come before it in the swarm
    holding    the swarm's own attempts by node
    direct     what its tasks say to each other goes from node to node
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
    direct: bool = False


def gpus_of(task: TaskSpec, module: ModuleSpec) -> GpuDemand:
    return demand(resources_of(task, module), task.gpu)


def tag_of(task: TaskSpec) -> str | None:
    """The <t> of the method `tag-<t>`."""
    return task.method[4:] if task.method.startswith("tag-") else None
