"""From a swarm to what is deployed: its specification and the blobs that it names.

The same swarm, files and values give the same bytes. Nothing is sent here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from manta.apis.errors import InvalidSwarm, InvalidValue
from manta.apis.graph import Graph, Vertex
from manta.apis.packaging import package
from manta.apis.swarm import Network, Swarm, definition_of, graph_of, schedule_of
from manta.protocol.spec import (
    Edge,
    ModuleSpec,
    NetworkSpec,
    ResourceSpec,
    ScheduleEntry,
    SwarmSpec,
    TaskSpec,
)
from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.transports.errors import ValueNotSerializable
from manta.transports.values import Encoded, encode

if TYPE_CHECKING:
    from manta.apis.module import Module
    from manta.apis.schedule import Schedule
    from manta.apis.task import Task

INLINE_TOTAL = 1024 * 1024
"""Bytes of values that ride in one specification; those beyond are blobs, however small."""

_NOT_YET = {
    "on_disconnect": None,
    "redundancy": None,
    "collect": "all",
}
"""Arguments of Task that this version accepts only at their defaults: none is ignored."""


class Compiled(NamedTuple):
    """`blobs` are the encoded values that the specification names, by digest."""

    spec: SwarmSpec
    blobs: dict[str, Encoded]


def compile_swarm(swarm: Swarm) -> Compiled:
    """Check and translate a swarm. Raises InvalidSwarm and its kinds."""
    definition = definition_of(swarm)
    schedule = schedule_of(swarm)
    graph = schedule.graph if schedule else graph_of(swarm)
    folders = _folders(swarm)
    blobs: dict[str, Encoded] = {}
    modules, names = _modules(graph, folders, blobs)
    return Compiled(
        SwarmSpec(
            name=definition.name,
            tasks=tuple(_task(vertex, names[vertex.task.module]) for vertex in graph.vertices),
            modules=modules,
            globals=_globals(definition.globals, blobs),
            max_iteration=definition.max_iteration,
            seed=definition.seed,
            schedule=_schedule(schedule) if schedule else (),
            networks=_networks(definition.networks, graph),
        ),
        blobs,
    )


def _schedule(schedule: Schedule) -> tuple[tuple[ScheduleEntry, ...], ...]:
    return tuple(
        tuple(ScheduleEntry(entry.aliases, entry.sequential) for entry in iteration)
        for iteration in schedule.iterations
    )


def _networks(networks: dict[str, Network], graph: Graph) -> tuple[NetworkSpec, ...]:
    for vertex in graph.vertices:
        if (name := vertex.task.network) is not None and name not in networks:
            there = ", ".join(map(repr, networks)) or "none"
            raise InvalidSwarm(
                f"Task {vertex.alias!r} is in the network {name!r}, which the swarm does not have "
                f"(it has {there}): add it with add_network({name!r})."
            )
    return tuple(
        NetworkSpec(name, network.topology, network.edges) for name, network in networks.items()
    )


def payload(value: Any, blobs: dict[str, Encoded], what: str, limit: int = INLINE_LIMIT) -> Payload:
    """The value as it travels; one that is over the limit is added to the blobs.

    Raises InvalidValue that starts with `what`.
    """
    try:
        encoded = encode(value)
    except ValueNotSerializable as error:
        raise InvalidValue(f"{what} cannot be sent: {error}") from None
    if encoded.nbytes <= limit:
        return Inline(encoded.to_bytes())
    return _blob(encoded, blobs)


def _blob(encoded: Encoded, blobs: dict[str, Encoded]) -> BlobRef:
    hasher = blake3()
    for part in encoded.parts():
        hasher.update(part)
    digest = hasher.hexdigest()
    blobs[digest] = encoded
    return BlobRef(digest, encoded.nbytes)


def _globals(values: dict[str, Any], blobs: dict[str, Encoded]) -> dict[str, Payload]:
    payloads, left = dict[str, Payload](), INLINE_TOTAL
    for tag, value in values.items():
        sent = payload(value, blobs, f"The global {tag!r}", min(left, INLINE_LIMIT))
        if isinstance(sent, Inline):
            left -= len(sent.data)
        payloads[tag] = sent
    return payloads


def _modules(
    graph: Graph, folders: Sequence[Path], blobs: dict[str, Encoded]
) -> tuple[tuple[ModuleSpec, ...], dict[Module, str]]:
    """The specifications, and each module's name among them.

    Modules alike are one; others that would share a name are numbered.
    """
    specs: dict[ModuleSpec, ModuleSpec] = {}  # as written -> as named
    names: dict[Module, str] = {}
    taken: set[str] = set()
    for vertex in graph.vertices:
        module = vertex.task.module
        if module in names:
            continue
        written = _module(module, folders, blobs)
        if written not in specs:
            name, number = written.name, 0
            while name in taken:
                number += 1
                name = f"{written.name}_{number}"
            taken.add(name)
            specs[written] = _renamed(written, name)
        names[module] = specs[written].name
    return tuple(specs.values()), names


def _module(module: Module, folders: Sequence[Path], blobs: dict[str, Encoded]) -> ModuleSpec:
    packed = package(module, folders)
    return ModuleSpec(
        name=module.name,
        package=None if packed is None else _blob(encode(packed.files), blobs),
        image=module.image,
        version=module.version,
        datasets=module.datasets,
        requirements=module.requirements or (packed.requirements if packed else ()),
        resources=_resources(module.resources),
    )


def _renamed(spec: ModuleSpec, name: str) -> ModuleSpec:
    from msgspec.structs import replace

    return spec if spec.name == name else replace(spec, name=name)


def _task(vertex: Vertex, module: str) -> TaskSpec:
    task = vertex.task
    for argument, default in _NOT_YET.items():
        if (given := getattr(task, argument)) != default:
            raise _unsupported(vertex, f"{argument}={given!r}")
    if isinstance(task.deadline, str):
        raise _unsupported(vertex, f"deadline={task.deadline!r}", ", or give seconds")
    return TaskSpec(
        alias=vertex.alias,
        module=module,
        after=tuple(Edge(alias, condition.value) for alias, condition in vertex.after.items()),
        method=task.method,
        fixed=task.fixed,
        excepted_ids=task.excepted_ids,
        specified_ids=task.specified_ids,
        maximum=task.maximum,
        replicas=task.replicas,
        gpu=task.gpu,
        network=task.network,
        class_name=task.class_name,
        resources=_resources(task.resources),
        datasets=_datasets(task),
        priority=task.priority,
        timeout=task.timeout,
        retries=task.retries,
        quorum=task.quorum,
        deadline=task.deadline,
    )


def _unsupported(vertex: Vertex, argument: str, remedy: str = "") -> InvalidSwarm:
    return InvalidSwarm(
        f"Task {vertex.alias!r} has {argument}, which this version of Manta cannot do yet: "
        f"leave it out{remedy}."
    )


def _datasets(task: Task) -> tuple[str, ...]:
    return tuple(name for name in task.datasets if name not in task.module.datasets)


def _resources(resources: dict[str, Any] | None) -> ResourceSpec | None:
    return None if resources is None else ResourceSpec(**resources)


def _folders(swarm: Swarm) -> list[Path]:
    """Where paths start: beside the swarm's file, then its bases' files, then here."""
    folders = []
    for kind in type(swarm).__mro__:
        if kind is Swarm:
            break
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if file is not None:
            folders.append(Path(file).resolve().parent)
    return list(dict.fromkeys([*folders, Path(os.getcwd())]))
