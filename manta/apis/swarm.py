"""A swarm: an algorithm as a graph of tasks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from importlib import import_module
from inspect import cleandoc
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, NamedTuple

from manta.apis import checks
from manta.apis.errors import GraphError, InvalidArgument, InvalidSwarm, InvalidValue
from manta.apis.graph import Graph, build
from manta.apis.module import Module
from manta.apis.task import Condition, Task, Wiring, flattened
from manta.protocol.names import MOST_DESCRIBED
from manta.roster.topologies import NAMES

if TYPE_CHECKING:
    from manta.apis.outcome import Outcome
    from manta.apis.schedule import Schedule

__all__ = ["Condition", "Module", "Swarm", "Task", "graph_of", "schedule_of"]


class Network(NamedTuple):
    """`topology` is full, ring, star, torus or edges; `edges` only with the last."""

    topology: str
    edges: tuple[tuple[str, str], ...] = ()


class Settings(MutableMapping[str, Any]):
    """Values by name, each checked when it is set."""

    def __init__(self, check: Callable[[object, object], tuple[str, Any]]) -> None:
        self._check = check
        self._held: dict[str, Any] = {}

    def replace(self, where: str, values: object) -> None:
        """Takes these values instead, if all of them are right."""
        if not isinstance(values, Mapping):
            raise InvalidArgument(f"{where} are {checks.shown(values)}: give a dict by name.")
        self._held = dict(self._check(name, value) for name, value in values.items())

    def __setitem__(self, name: str, value: Any) -> None:
        name, value = self._check(name, value)
        self._held[name] = value

    def __getitem__(self, name: str) -> Any:
        return self._held[name]

    def __delitem__(self, name: str) -> None:
        del self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __repr__(self) -> str:
        return repr(self._held)


class _State:
    """A swarm's own state, kept apart so that it never clashes with a user's attributes."""

    __slots__ = ("cluster", "globals", "max_iteration", "networks", "seed")

    def __init__(self) -> None:
        self.globals = Settings(_global)
        self.networks = Settings(_named_network)
        self.cluster: str | None = None
        self.max_iteration: int | None = None
        self.seed = 0


class Swarm:
    """The base class of swarms: make Tasks in `__init__`, and connect them in `execute()`.

    The graph runs once, or `max_iteration` times, or as long as a task calls
    `schedule_next_iter`, but at most `max_iteration` times. `seed` fixes every random choice.
    Instead of `execute()`, an attribute `schedule` can say what runs in which iteration:
    `[("worker", "parallel"), ("aggregator", "sequential")] * 10`. Names are attributes;
    `parallel` starts all instances of a task at once, `sequential` one after another; entries
    run in order, and a repeat of the first starts the next iteration. With neither, the
    attributes that are tasks run in the order in which they were assigned.
    `super().__init__()` may be omitted when both defaults are fine.
    """

    name: str = ""
    description: str = ""
    """What it is for, which the owners of nodes are shown. If empty: the class's docstring."""
    _manta: _State

    def __new__(cls, *_: Any, **__: Any) -> Swarm:
        swarm = super().__new__(cls)
        swarm._manta = _State()
        return swarm

    def __init__(self, max_iteration: int | None = None, seed: int | None = None) -> None:
        if max_iteration is not None:
            self.max_iteration = max_iteration
        if seed is not None:
            self.seed = seed

    @property
    def max_iteration(self) -> int | None:
        """How often the graph runs at most; None leaves that to the tasks."""
        return self._manta.max_iteration

    @max_iteration.setter
    def max_iteration(self, value: int | None) -> None:
        self._manta.max_iteration = checks.optional_integer("Swarm's max_iteration", value, 1)

    @property
    def seed(self) -> int:
        """The seed of every random choice, 0 to 2**63 - 1; 0 unless it is set."""
        return self._manta.seed

    @seed.setter
    def seed(self, value: int) -> None:
        self._manta.seed = checks.integer("Swarm's seed", value, 0)

    @property
    def globals(self) -> Settings:
        """The globals by tag. A dict that is assigned replaces them all. Raises InvalidValue."""
        return self._manta.globals

    @globals.setter
    def globals(self, values: Mapping[str, Any]) -> None:
        self._manta.globals.replace(_GLOBALS, values)

    @property
    def networks(self) -> Settings:
        """The networks by name. A dict of topologies, as `add_network` takes them, that is
        assigned replaces them all. Raises InvalidArgument."""
        return self._manta.networks

    @networks.setter
    def networks(self, topologies: Mapping[str, Any]) -> None:
        self._manta.networks.replace(_NETWORKS, topologies)

    def execute(self) -> Task | list[Any]:
        """Connects the tasks; returns the last one, or a list of all that nothing runs after."""
        return _in_order(self)

    def set_global(self, tag: str, value: Any) -> None:
        """Sets a global, which all tasks can read and write as `world.globals[tag]`.

        What is sent is the value at the time of deployment. Raises InvalidValue.
        """
        self._manta.globals[tag] = value

    def add_network(self, name: str, topology: str | Iterable[tuple[str, str]] = "full") -> None:
        """Adds a network: instances of `Task(network=name)` can talk to their neighbors only.

        `topology` is "full"; "ring", each instance with the next and the last with the first;
        "star", all with the first; "torus", each with four in the squarest grid that they fill,
        whose opposite sides touch; or pairs of nodes, by id or alias. Instances are ordered by
        task and rank. Raises InvalidArgument.
        """
        name, network = _named_network(name, topology)
        if name in self._manta.networks:
            raise InvalidArgument(f"There is a network {name!r} already: give another name.")
        self._manta.networks[name] = network

    def set_cluster(self, cluster: Any) -> None:
        """Sets where `deploy_swarm(swarm)` deploys: a cluster, its id or its name."""
        self._manta.cluster = checks.identity("cluster", cluster)

    def run(
        self,
        nodes: int = 1,
        datasets: Mapping[str, str | os.PathLike[str]] | None = None,
        *,
        logs: bool = True,
        progress: bool = True,
        links: str = "local",
    ) -> Outcome:
        """Runs the swarm on a manager and nodes that are started on this machine for it, as
        `manta run` does, and returns what came of it once all is gone again.

        `datasets` are paths by name, as `manta.LocalCluster` takes them. While it runs, its
        iterations with their metrics, and what its tasks log, are printed: `logs=False` leaves out
        the latter, `progress=False` both. Raises InvalidSwarm; raises SwarmFailed, with what came
        of it, unless the swarm completes.
        """
        here = import_module("manta.cli.commands.run")  # a floor above: it is imported when wanted
        outcome: Outcome = here.run_here(
            self, nodes, datasets, logs=logs, progress=progress, links=links
        )
        return outcome

    def __str__(self) -> str:
        schedule = None
        try:
            schedule = schedule_of(self)
            graph = str(schedule or graph_of(self))
        except InvalidSwarm as error:
            graph = f"not valid: {error}"
        return "\n  ".join([_title(self, schedule), *graph.splitlines(), *_notes(self)])

    def _repr_html_(self) -> str:
        """Draws the graph in notebooks, or says why the swarm is not valid."""
        from manta.apis import drawing

        schedule = None
        try:
            schedule = schedule_of(self)
            drawn = (schedule or graph_of(self))._repr_html_()
        except InvalidSwarm as error:
            drawn = drawing.text(f"not valid: {error}")
        return drawing.titled(_title(self, schedule), drawn, _notes(self))


def _title(swarm: Swarm, schedule: Schedule | None) -> str:
    ceiling = swarm.max_iteration
    if schedule is not None:
        count = min(len(schedule.iterations), ceiling or len(schedule.iterations))
        times = f"{count} iteration{'s' * (count != 1)}, by its schedule"
    elif ceiling is not None:
        times = f"up to {ceiling} iterations"
    else:
        times = "1 iteration, or as tasks schedule"
    return f"Swarm {name_of(swarm)} ({times})"


def _notes(swarm: Swarm) -> list[str]:
    tags = swarm.globals
    return [f"globals: {', '.join(tags)}"] if tags else []


class Definition(NamedTuple):
    """What the swarm itself contributes to its specification."""

    name: str
    globals: dict[str, Any]
    cluster: str | None
    max_iteration: int | None
    seed: int
    networks: dict[str, Network]
    description: str


def definition_of(swarm: Swarm) -> Definition:
    """Returns the swarm's definition. Raises InvalidArgument if it is not a swarm, or has an
    attribute that hides one of the base class and cannot stand for it."""
    if isinstance(swarm, type) and issubclass(swarm, Swarm):
        raise InvalidArgument(
            f"{swarm.__name__} is a class, not a swarm: give an object, {swarm.__name__}()."
        )
    if not isinstance(swarm, Swarm):
        raise InvalidArgument(
            f"{checks.shown(swarm)} is not a swarm: give an object of a Swarm class."
        )
    _check_attributes(swarm)
    # A class may set these too, as plain attributes, which hide the properties.
    return Definition(
        name_of(swarm),
        _settings(swarm.globals, swarm._manta.globals, _GLOBALS, _global),
        swarm._manta.cluster,
        checks.optional_integer("Swarm's max_iteration", swarm.max_iteration, 1),
        checks.integer("Swarm's seed", swarm.seed, 0),
        _settings(swarm.networks, swarm._manta.networks, _NETWORKS, _named_network),
        _description_of(swarm),
    )


def _description_of(swarm: Swarm) -> str:
    """The first paragraph of its docstring, if its class is a user's, unless it says something
    else."""
    given = swarm.description
    if not isinstance(given, str):
        raise InvalidArgument(
            f"{type(swarm).__name__}.description is {checks.shown(given)}: give a text that says "
            "what the swarm is for, or give the attribute another name."
        )
    if len(given) > MOST_DESCRIBED:
        raise InvalidArgument(
            f"The description of swarm {name_of(swarm)!r} has {len(given)} characters: "
            f"{MOST_DESCRIBED} are enough."
        )
    kind = type(swarm)
    written = "" if kind.__module__.startswith("manta.") else kind.__dict__.get("__doc__") or ""
    first = " ".join(cleandoc(written).partition("\n\n")[0].split())
    return given or first[:MOST_DESCRIBED]


def _settings(
    shown: object, held: Settings, where: str, check: Callable[[object, object], tuple[str, Any]]
) -> dict[str, Any]:
    """Returns what was set one by one and, if a class or an object hides that, its values."""
    if shown is held:
        return dict(held)
    found = Settings(check)
    found.replace(where, shown)
    return {**found, **held}


def _check_attributes(swarm: Swarm) -> None:
    checks.optional_integer("Swarm's max_iteration", swarm.max_iteration, 1)
    for name in ("execute", "set_global", "add_network", "set_cluster"):
        found = getattr(swarm, name)
        if not isinstance(found, FunctionType | MethodType):
            raise InvalidArgument(
                f"{type(swarm).__name__}.{name} is {checks.shown(found)} and hides the method "
                f"{name}() of Swarm: give it another name."
            )


def name_of(swarm: Swarm) -> str:
    return checks.name("Swarm's name", swarm.name or type(swarm).__name__)


def graph_of(swarm: Swarm) -> Graph:
    """Calls `execute()` and builds the graph. Raises GraphError, InvalidArgument."""
    _check_attributes(swarm)
    name = name_of(swarm)
    attributes = {task: attribute for attribute, tasks in _attributes(swarm) for task in tasks}
    with Wiring() as wiring:
        last = swarm.execute()
    if last is None:
        raise GraphError(
            f"execute() of swarm {name!r} returned nothing: "
            "return the last task, or a list of the last tasks."
        )
    tasks = flattened([last], f"execute() of swarm {name!r} returned")
    if not tasks:
        raise GraphError(f"Swarm {name!r} has no tasks: make one, and return it from execute().")
    return build(tasks, wiring, attributes, name)


def schedule_of(swarm: Swarm) -> Schedule | None:
    """Returns the swarm's schedule, if it has one. Raises InvalidSwarm, GraphError."""
    _check_attributes(swarm)
    written = getattr(swarm, "schedule", None)
    if written is None:
        return None
    name = name_of(swarm)
    if type(swarm).execute is not Swarm.execute:
        raise InvalidSwarm(
            f"Swarm {name!r} has execute() and a schedule: say in one of them what runs when."
        )
    from manta.apis import schedule

    return schedule.build(written, dict(_attributes(swarm)), name)


_GLOBALS, _NETWORKS = "Swarm's globals", "Swarm's networks"


def _global(tag: object, value: object) -> tuple[str, Any]:
    tag = checks.name("The tag of a global", tag)
    # Only to fail at the line that is wrong; arrays are not copied.
    from manta.transports.codec.values import encode
    from manta.transports.errors import ValueNotSerializable

    try:
        encode(value)
    except ValueNotSerializable as error:
        raise InvalidValue(f"The global {tag!r} cannot be sent: {error}") from None
    return tag, value


def _named_network(name: object, topology: object) -> tuple[str, Network]:
    return checks.name("The name of a network", name), _network(topology)


def _network(topology: object) -> Network:
    if isinstance(topology, Network):
        return topology
    topology = checks.plain(topology)
    names = ", ".join(f'"{name}"' for name in NAMES)
    remedy = f"give {names}, or pairs of nodes"
    if isinstance(topology, str):
        if topology not in NAMES:
            raise InvalidArgument(f"The topology of add_network is {topology!r}: {remedy}.")
        return Network(topology)
    if not isinstance(topology, Iterable):
        raise InvalidArgument(f"The topology of add_network is {checks.shown(topology)}: {remedy}.")
    edges = []
    for pair in topology:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise InvalidArgument(f"{checks.shown(pair)} is not a pair of nodes: {remedy}.")
        one, other = (
            checks.name("A node of add_network", getattr(node, "id", node)) for node in pair
        )
        if one == other:
            raise InvalidArgument(f"add_network joins {one!r} to itself: name two nodes.")
        edges.append((one, other))
    if not edges:
        raise InvalidArgument(f"The topology of add_network has no pairs: {remedy}.")
    return Network("edges", tuple(edges))


def _attributes(swarm: Swarm) -> Iterable[tuple[str, list[Task]]]:
    """Yields the attributes that hold tasks, in order of assignment."""
    for attribute, value in vars(swarm).items():
        items = value.values() if isinstance(value, Mapping) else value
        if isinstance(value, Task):
            yield attribute, [value]
        elif isinstance(items, list | tuple) or isinstance(value, Mapping):
            tasks = [item for item in items if isinstance(item, Task)]
            if tasks:
                yield attribute, tasks


def _in_order(swarm: Swarm) -> list[Task]:
    last: list[Task] = []
    for _, tasks in _attributes(swarm):
        for task in tasks:
            task(last)
        last = tasks
    return last
