"""A swarm's `schedule`: which tasks run in which iteration, and how. Pure.

    self.schedule = [("worker", "parallel"), ("aggregator", "sequential")] * 10

A name is an attribute of the swarm: a task, or a list or dict of tasks that run in parallel.
Entries run in order; a repeat of the first one starts the next iteration. A name that occurs
twice in an iteration stands for a second task on the same module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from manta.apis import checks
from manta.apis.errors import InvalidSwarm
from manta.apis.graph import Graph, Vertex, placing, unique_aliases
from manta.apis.task import Condition, Task

MODES = ("parallel", "sequential")


class Entry(NamedTuple):
    """Tasks that run in parallel; `sequential` runs the instances of each one after another."""

    aliases: tuple[str, ...]
    sequential: bool


class Schedule(NamedTuple):
    """`graph` has the tasks without edges; `iterations` says what runs when."""

    graph: Graph
    iterations: tuple[tuple[Entry, ...], ...]

    def __str__(self) -> str:
        lines = str(self.graph).splitlines()
        count = len(self.iterations)
        if len(set(self.iterations)) == 1:
            times = f"{count} times" if count > 1 else "once"
            return "\n".join([*lines, f"{times}: {_shown(self.iterations[0])}"])
        numbered = [
            f"iteration {i}: {_shown(entries)}" for i, entries in enumerate(self.iterations)
        ]
        return "\n".join([*lines, *numbered])

    def _repr_html_(self) -> str:
        """Draws one iteration if all are alike, else shows text."""
        from manta.apis import drawing

        if len(set(self.iterations)) > 1:
            return drawing.text(str(self))
        tasks = {vertex.alias: vertex.task for vertex in self.graph.vertices}
        boxes: list[drawing.Box] = []
        before: tuple[str, ...] = ()
        for entry in self.iterations[0]:
            mode = ", one by one" if entry.sequential else ""
            after = dict.fromkeys(before, Condition.FINISHED)
            boxes += (
                drawing.Box(alias, placing(tasks[alias]) + mode, after) for alias in entry.aliases
            )
            before = entry.aliases
        return drawing.graph(boxes, str(self))


def build(written: object, attributes: Mapping[str, Sequence[Task]], swarm: str) -> Schedule:
    """Builds a schedule; `attributes` are the swarm's. Raises InvalidSwarm, GraphError."""
    entries = _entries(written, attributes, swarm)
    iterations: list[list[tuple[str, str]]] = []
    for entry in entries:
        if not iterations or entry == entries[0]:
            iterations.append([])
        iterations[-1].append(entry)
    _check_all_named(entries, attributes, swarm)
    needed: Counter[str] = Counter()
    for iteration in iterations:
        needed |= Counter(name for name, _ in iteration)
    wanted = [
        (name, copy, task)
        for name, tasks in attributes.items()
        for copy in range(needed[name])
        for task in tasks
    ]
    wanted.sort(key=lambda item: item[2].order)
    aliases = unique_aliases(
        [(task.alias, task.has_alias and not copy) for _, copy, task in wanted]
    )
    named: dict[tuple[str, int], list[str]] = {}
    for (name, copy, _), alias in zip(wanted, aliases, strict=True):
        named.setdefault((name, copy), []).append(alias)
    graph = Graph(
        tuple(Vertex(alias, task, {}) for (_, _, task), alias in zip(wanted, aliases, strict=True))
    )
    return Schedule(graph, tuple(_with_aliases(iteration, named) for iteration in iterations))


def _with_aliases(
    iteration: Sequence[tuple[str, str]], named: Mapping[tuple[str, int], Sequence[str]]
) -> tuple[Entry, ...]:
    seen: Counter[str] = Counter()
    found = []
    for name, mode in iteration:
        found.append(Entry(tuple(named[name, seen[name]]), mode == "sequential"))
        seen[name] += 1
    return tuple(found)


def _entries(
    written: object, attributes: Mapping[str, Sequence[Task]], swarm: str
) -> list[tuple[str, str]]:
    form = 'a list of entries such as ("worker", "parallel")'
    if not isinstance(written, list | tuple):
        raise InvalidSwarm(
            f"The schedule of swarm {swarm!r} is {checks.shown(written)}: give {form}."
        )
    if not written:
        raise InvalidSwarm(f"The schedule of swarm {swarm!r} is empty: give {form}.")
    found = []
    for number, entry in enumerate(written):
        head = f"Entry {number} of the schedule of swarm {swarm!r}"
        if not isinstance(entry, list | tuple) or len(entry) != 2:
            raise InvalidSwarm(f"{head} is {checks.shown(entry)}: give (name, mode).")
        name, mode = map(checks.plain, entry)
        if not isinstance(mode, str) or mode not in MODES:
            raise InvalidSwarm(
                f'{head} has the mode {checks.shown(mode)}: give "parallel" or "sequential".'
            )
        if not isinstance(name, str) or name not in attributes:
            there = ", ".join(attributes) or "none"
            raise InvalidSwarm(
                f"{head} names {checks.shown(name)}, which is no attribute of the swarm that "
                f"holds a task (there are: {there})."
            )
        found.append((name, mode))
    return found


def _check_all_named(
    entries: Sequence[tuple[str, str]], attributes: Mapping[str, Sequence[Task]], swarm: str
) -> None:
    names = {name for name, _ in entries}
    scheduled = {task for name in names for task in attributes[name]}
    for name, tasks in attributes.items():
        for task in tasks:
            if task not in scheduled:
                raise InvalidSwarm(
                    f"Task {task.alias!r} (self.{name}) of swarm {swarm!r} is in no entry of its "
                    "schedule: name it there, or remove it."
                )
            if task.wired:
                raise InvalidSwarm(
                    f"Task {task.alias!r} (self.{name}) of swarm {swarm!r} was called to run after "
                    "others, and the swarm has a schedule: order them in one way, not in both."
                )


def _shown(entries: Sequence[Entry]) -> str:
    return ", then ".join(
        " and ".join(entry.aliases) + (" one by one" if entry.sequential else "")
        for entry in entries
    )
