"""What placement knows of a node, and how a swarm names nodes: by id, alias, or the unique
beginning of an id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from manta.protocol.gpus import NONE, GpuDemand
from manta.protocol.names import meant
from manta.protocol.node import Capabilities, Load
from manta.protocol.spec import NetworkSpec, ResourceSpec, TaskSpec


@dataclass(frozen=True)
class NodeView:
    """`assigned` counts the attempts of other swarms on the node.

    `returning`: it is not connected, but was a moment ago and may be back at once. `trouble`: why
    it takes no new work, as the rest of a sentence. `notice`: what users are told of it. `direct`:
    it can exchange with other nodes itself.
    """

    id: str
    alias: str
    capabilities: Capabilities
    connected: bool = True
    draining: bool = False
    returning: bool = False
    trouble: str = ""
    notice: str = ""
    direct: bool = True
    assigned: int = 0
    load: Load = field(default_factory=Load)


def places(node: NodeView, asked: ResourceSpec | None, gpus: GpuDemand = NONE) -> int:
    """How many instances that ask for this may run on the node at the same time, at most."""
    has = node.capabilities
    bounds = [has.max_concurrent_tasks]
    if asked is not None and asked.cpu:
        bounds.append(int(has.cores / asked.cpu + 1e-9))
    if asked is not None and asked.memory:
        bounds.append(has.memory // asked.memory)
    if gpus.number:
        fitting = [gpu.memory for gpu in has.gpus if gpu.memory >= gpus.memory]
        parts = sum(memory // gpus.memory for memory in fitting) if gpus.shared else len(fitting)
        bounds.append(parts // gpus.number)
    return min(bounds)


def has_gpus_now(node: NodeView, gpus: GpuDemand) -> bool:
    """Whether an instance need not wait for GPUs, as far as the node has told."""
    memories = [gpu.memory for gpu in node.capabilities.gpus]
    return sum(map(gpus.fits, memories, node.load.gpu_room or memories)) >= gpus.number


def ids_of(names: Iterable[str], nodes: Sequence[NodeView]) -> tuple[str, ...]:
    """The ids of the named nodes. A name that fits no node, or several, stays as it is."""
    return tuple(_id_of(name, nodes) for name in names)


def _id_of(name: str, nodes: Sequence[NodeView]) -> str:
    found = [node.id for node in nodes if name in (node.id, node.alias)] or _fitting(name, nodes)
    return found[0] if len(found) == 1 else name


def _fitting(name: str, nodes: Sequence[NodeView]) -> list[str]:
    return sorted(node.id for node in nodes if node.id.startswith(name))


def misnamed(task: TaskSpec, nodes: Sequence[NodeView]) -> Iterator[str]:
    """Sentences on wrong names in specified_ids and excepted_ids."""
    known = {node.id for node in nodes}
    only, but = (
        dict(zip(ids_of(names, nodes), names, strict=True))
        for names in (task.specified_ids or (), task.excepted_ids or ())
    )
    for argument, found in (("specified_ids", only), ("excepted_ids", but)):
        for name in (name for id_, name in found.items() if id_ not in known):
            head = f"Task {task.alias!r} has {name!r} in {argument}, which"
            fits = _fitting(name, nodes)
            if fits:
                some = ", ".join(fits[:3]) + ", ..." * (len(fits) > 3)
                yield f"{head} may be any of {some}; give more of the id, or an alias."
            else:
                yield f"{head} is not a node of this cluster; correct it (manta node list)."
    for id_ in only.keys() & but.keys():
        if only[id_] != but[id_]:  # else it is a flaw of the swarm, whatever nodes there are
            yield (
                f"Task {task.alias!r} has the node {id_} in specified_ids (as {only[id_]!r}) and "
                f"in excepted_ids (as {but[id_]!r}); take it out of one."
            )


def unknown_in(network: NetworkSpec, nodes: Sequence[NodeView]) -> Iterator[str]:
    """Sentences on names in a network's edges that are neither an id nor an alias."""
    known = {name for node in nodes for name in (node.id, node.alias)}
    for name in dict.fromkeys(name for edge in network.edges for name in edge):
        if name not in known:
            yield (
                f"The network {network.name!r} joins {name!r}, which is neither id nor alias of a "
                "node of this cluster; correct it (manta node list)."
                + meant(name, (node.alias for node in nodes))
            )
