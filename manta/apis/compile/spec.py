"""Compiles a swarm to its specification and the blobs that it names.

The same swarm, files and values give the same bytes. Nothing is sent here: `prepare` lists the
registered modules that a swarm names, the caller looks them up and passes them to `finish`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from manta.apis.compile.classes import Source, check_class
from manta.apis.compile.meetings import meets
from manta.apis.compile.packaging import (
    Package,
    Wanted,
    entry_of,
    find_program,
    locate,
    lying,
    package,
)
from manta.apis.compile.values import payload, to_blob
from manta.apis.errors import InvalidSwarm, ModuleError
from manta.apis.graph import Graph, Vertex
from manta.apis.swarm import Definition, Network, Swarm, definition_of, graph_of, schedule_of
from manta.protocol.names import numbered
from manta.protocol.spec import (
    Edge,
    ModuleSpec,
    NetworkSpec,
    ResourceSpec,
    ScheduleEntry,
    SwarmSpec,
    TaskSpec,
)
from manta.protocol.values import INLINE_LIMIT, Inline, Payload
from manta.transports.codec.values import Encoded, encode
from manta.transports.errors import TransportError

if TYPE_CHECKING:
    from manta.apis.module import Module
    from manta.apis.schedule import Schedule
    from manta.apis.task import Task

INLINE_TOTAL = 1024 * 1024
"""Bytes of inline values in one specification; any beyond that are blobs, however small."""

_NOT_YET = {
    "on_disconnect": None,
    "redundancy": None,
}
"""Arguments of Task that this version refuses unless they have their default value."""


class Known(NamedTuple):
    """A registered module, and its source if that was read."""

    spec: ModuleSpec
    source: Source | None = None


Registered = Mapping[Wanted, Known | str]
"""What the registry has of each; a text says why it has nothing that fits."""


def known(spec: ModuleSpec, load: Callable[[], Any] | None) -> Known:
    """Finds the source in the package that `load` decodes; what is no package, nodes refuse."""
    if load is None:
        return Known(spec)
    try:
        text = entry_of(load())
    except (LookupError, TypeError, TransportError):
        text = None
    if not isinstance(text, bytes | str):
        return Known(spec)
    named = f"the registered module {spec.name!r}"
    return Known(spec, Source(text, f"{named} {spec.version}" if spec.version else named))


class Prepared(NamedTuple):
    """A swarm with its graph; `sources` says where each module's program is."""

    definition: Definition
    graph: Graph
    schedule: Schedule | None
    folders: list[Path]
    sources: dict[Module, Path | Wanted | None]

    @property
    def wanted(self) -> list[Wanted]:
        """The modules to look up in the registry."""
        return list(
            {source: None for source in self.sources.values() if isinstance(source, Wanted)}
        )


class Compiled(NamedTuple):
    """`blobs` has the encoded values that the specification names, by digest; `versioned` its
    modules with a version that did not come from the registry; `notes` says what was packed along.
    """

    spec: SwarmSpec
    blobs: dict[str, Encoded]
    versioned: tuple[ModuleSpec, ...] = ()
    notes: tuple[str, ...] = ()


def prepare(swarm: Swarm) -> Prepared:
    """Checks the graph and finds the programs of the modules. Raises InvalidSwarm."""
    definition = definition_of(swarm)
    schedule = schedule_of(swarm)
    graph = schedule.graph if schedule else graph_of(swarm)
    folders = _folders(swarm)
    modules = dict.fromkeys(vertex.task.module for vertex in graph.vertices)
    return Prepared(
        definition, graph, schedule, folders, {one: locate(one, folders) for one in modules}
    )


def compile_swarm(swarm: Swarm) -> Compiled:
    """Compiles a swarm without a registry. Raises InvalidSwarm."""
    return finish(prepare(swarm), {})


def compile_module(module: Module) -> tuple[ModuleSpec, dict[str, Encoded], list[str]]:
    """Compiles a single module; its paths start in the working folder. Raises ModuleError.

    Returns its specification, the blobs, and notes.
    """
    folders = [Path(os.getcwd())]
    if module.is_range:
        raise ModuleError(
            f"Module {module.name!r} has the range {module.version!r}: "
            'a module that is sent has one version, such as "1.0.0", or none.'
        )
    blobs: dict[str, Encoded] = {}
    source = locate(module, folders)
    found = find_program(module, folders) if isinstance(source, Wanted) else source
    notes: list[str] = []
    return _local(module, package(module, found, folders), blobs, notes), blobs, notes


def finish(prepared: Prepared, registered: Registered) -> Compiled:
    """Compiles a prepared swarm. Raises InvalidSwarm."""
    definition, graph, schedule, *_ = prepared
    blobs: dict[str, Encoded] = {}
    notes: list[str] = []
    modules, names, versioned, sources = _modules(prepared, registered, blobs, notes)
    meet = cache(lambda source, class_name: meets(source.tree, class_name))
    return Compiled(
        SwarmSpec(
            name=definition.name,
            tasks=tuple(
                _task(vertex, names[vertex.task.module], sources.get(vertex.task.module), meet)
                for vertex in graph.vertices
            ),
            modules=modules,
            globals=_globals(definition.globals, blobs),
            max_iteration=definition.max_iteration,
            seed=definition.seed,
            schedule=_schedule(schedule) if schedule else (),
            networks=_networks(definition.networks, graph),
            description=definition.description,
        ),
        blobs,
        versioned,
        tuple(dict.fromkeys(notes)),
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


def _globals(values: dict[str, Any], blobs: dict[str, Encoded]) -> dict[str, Payload]:
    payloads, left = dict[str, Payload](), INLINE_TOTAL
    for tag, value in values.items():
        sent = payload(value, blobs, f"The global {tag!r}", min(left, INLINE_LIMIT))
        if isinstance(sent, Inline):
            left -= len(sent.data)
        payloads[tag] = sent
    return payloads


def _modules(
    prepared: Prepared, registered: Registered, blobs: dict[str, Encoded], notes: list[str]
) -> tuple[tuple[ModuleSpec, ...], dict[Module, str], tuple[ModuleSpec, ...], dict[Module, Source]]:
    """Returns the specifications, the name of each module in them, those to register, and the
    source of those whose source is known.

    Equal modules are merged; different ones that would share a name are numbered.
    """
    specs: dict[ModuleSpec, ModuleSpec] = {}  # as written -> as named
    names: dict[Module, str] = {}
    taken: set[str] = set()
    versioned: dict[ModuleSpec, None] = {}
    sources: dict[Module, Source] = {}
    same: dict[Source, Source] = {}
    for module, source in prepared.sources.items():
        known = registered.get(source, "") if isinstance(source, Wanted) else ""
        if isinstance(known, Known):
            written = _of_registry(module, known.spec)
            if known.source is not None:
                sources[module] = known.source
            if (hidden := lying(module, prepared.folders)) is not None:
                notes.append(
                    f"Module {known.spec.name} {written.version} is the registered one, not "
                    f'{hidden}: write "./{module.python_program}" for that.'
                )
        else:
            folders = prepared.folders
            found = find_program(module, folders, known) if isinstance(source, Wanted) else source
            packed = package(module, found, folders)
            if packed is not None:
                made = Source(packed.entry, _where(module, found))
                sources[module] = same.setdefault(made, made)
            written = _local(module, packed, blobs, notes)
            if written.version is not None:
                versioned[written] = None
        if written not in specs:
            name, number = written.name, 0
            while name in taken:
                number += 1
                name = numbered(written.name, number)
            taken.add(name)
            specs[written] = _renamed(written, name)
        names[module] = specs[written].name
    return tuple(specs.values()), names, tuple(versioned), sources


def _local(
    module: Module, packed: Package | None, blobs: dict[str, Encoded], notes: list[str]
) -> ModuleSpec:
    if packed is not None and packed.along:
        notes.append(
            f"Module {module.name} takes along what it imports and lies beside it: "
            f"{', '.join(packed.along)}."
        )
    return ModuleSpec(
        name=module.name,
        package=None if packed is None else to_blob(encode(packed.files), blobs),
        image=module.image,
        version=module.version,
        datasets=module.datasets,
        requirements=module.requirements or (packed.requirements if packed else ()),
        resources=_resources(module.resources),
        outbound=module.outbound,
    )


def _where(module: Module, found: Path | None) -> str:
    if module.function is not None:
        return f"what was taken along with {module.function.__name__}"
    if found is None:
        return f"the source text of module {module.name!r}"
    return str(found / "__init__.py" if found.is_dir() else found)


def _of_registry(module: Module, known: ModuleSpec) -> ModuleSpec:
    """Takes what was registered, except for what the module sets itself."""
    if module.include:
        raise ModuleError(
            f"Module {module.name!r} is registered, and so packed already: "
            "leave include out, and send it with what it needs."
        )
    return ModuleSpec(
        name=module.name,
        package=known.package,
        image=module.image or known.image,
        version=known.version,
        datasets=module.datasets or known.datasets,
        requirements=module.requirements or known.requirements,
        resources=_resources(module.resources) or known.resources,
        outbound=module.outbound or known.outbound,
    )


def _renamed(spec: ModuleSpec, name: str) -> ModuleSpec:
    return spec if spec.name == name else replace(spec, name=name)


def _task(
    vertex: Vertex,
    module: str,
    source: Source | None,
    meet: Callable[[Source, str | None], str],
) -> TaskSpec:
    task = vertex.task
    if source is not None:
        check_class(task, vertex.alias, source)
    for argument, default in _NOT_YET.items():
        if (given := getattr(task, argument)) != default:
            raise _unsupported(vertex, f"{argument}={given!r}")
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
        outbound=tuple(way for way in task.outbound if way not in task.module.outbound),
        priority=task.priority,
        timeout=task.timeout,
        retries=task.retries,
        collect=task.collect,
        quorum=task.quorum,
        deadline=task.deadline,
        meets=meet(source, task.class_name) if source is not None else "",
    )


def _unsupported(vertex: Vertex, argument: str) -> InvalidSwarm:
    return InvalidSwarm(
        f"Task {vertex.alias!r} has {argument}, which this version of Manta cannot do yet: "
        "leave it out."
    )


def _datasets(task: Task) -> tuple[str, ...]:
    return tuple(name for name in task.datasets if name not in task.module.datasets)


def _resources(resources: dict[str, Any] | None) -> ResourceSpec | None:
    if resources is None:
        return None
    labels = tuple(sorted(resources.get("labels", {}).items()))
    return ResourceSpec(**{**resources, "labels": labels})


def _folders(swarm: Swarm) -> list[Path]:
    """Returns where paths start: the folders of the swarm's file and its bases', then this one."""
    folders = []
    for kind in type(swarm).__mro__:
        if kind is Swarm:
            break
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        if file is not None:
            folders.append(Path(file).resolve().parent)
    with suppress(FileNotFoundError):  # it may have been removed
        folders.append(Path(os.getcwd()))
    return list(dict.fromkeys(folders))
