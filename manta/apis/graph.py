"""The graph of a swarm: which task runs after which. Pure.

`build` makes it from the calls of tasks. It assigns aliases and a topological order; ties keep the
order in which the tasks were created.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from manta.apis.errors import GraphError
from manta.apis.task import Condition, Task, Wiring
from manta.protocol.names import numbered

__all__ = [
    "Condition",
    "Graph",
    "Vertex",
    "build",
    "placing",
    "topological_order",
    "unique_aliases",
]


class Vertex(NamedTuple):
    """A task in its graph; `after` maps aliases to conditions."""

    alias: str
    task: Task
    after: dict[str, Condition]


class Graph(NamedTuple):
    """Vertices in a topological order."""

    vertices: tuple[Vertex, ...]

    def __str__(self) -> str:
        rows = []
        for vertex in self.vertices:
            after = ", ".join(
                alias + (" (first result)" if condition is Condition.RESULT else "")
                for alias, condition in vertex.after.items()
            )
            rows.append((vertex.alias, placing(vertex.task), f"after {after}" if after else ""))
        widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
        return "\n".join(
            f"{alias:{widths[0]}}  {where:{widths[1]}}  {after}".rstrip()
            for alias, where, after in rows
        )

    def _repr_html_(self) -> str:
        """Draws the graph in notebooks."""
        from manta.apis import drawing

        boxes = [drawing.Box(v.alias, placing(v.task), v.after) for v in self.vertices]
        return drawing.graph(boxes, str(self))


def placing(task: Task) -> str:
    """Says where a task runs."""
    if task.replicas is not None:
        return f"{task.replicas} replicas"
    if task.method.startswith("tag-"):
        where = f"on the nodes that wrote {task.method[4:]!r}"
    elif task.method == "best_resources":
        where = "on the nodes with the best resources"
    else:
        where = {"all": "on all nodes", "any": "on any node", "random": "on random nodes"}[
            task.method
        ]
    if task.maximum == -1 or (task.method == "any" and task.maximum == 1):
        return where
    if isinstance(task.maximum, float):
        return f"{where}, {task.maximum:.0%} of them"
    return f"{where}, at most {task.maximum}"


def build(
    last: Sequence[Task], wiring: Wiring, attributes: Mapping[Task, str], swarm: str
) -> Graph:
    """Builds the graph that ends in `last`.

    `attributes` names the swarm's own tasks. Raises GraphError for a cycle, an alias that is used
    twice, or a task that nothing in `last` runs after.
    """
    after = _ancestry(last, wiring)
    for task in {**dict.fromkeys(attributes), **wiring.known}:
        if task not in after:
            shown = f"self.{attributes[task]}" if task in attributes else "it"
            raise GraphError(
                f"Task {task.alias!r} of swarm {swarm!r} is unconnected: nothing that execute() "
                f"returns runs after it. Give {shown} to a task that comes later, return it as "
                "well (in a list), or remove it."
            )
    tasks = sorted(after, key=lambda task: task.order)
    aliases = dict(
        zip(tasks, unique_aliases([(task.alias, task.has_alias) for task in tasks]), strict=True)
    )
    order = topological_order(
        {aliases[task]: [aliases[parent] for parent in after[task]] for task in tasks}
    )
    by_alias = {alias: task for task, alias in aliases.items()}
    return Graph(
        tuple(
            Vertex(
                alias,
                by_alias[alias],
                {aliases[parent]: how for parent, how in after[by_alias[alias]].items()},
            )
            for alias in order
        )
    )


def _ancestry(last: Sequence[Task], wiring: Wiring) -> dict[Task, dict[Task, Condition]]:
    found: dict[Task, dict[Task, Condition]] = {}
    to_visit = list(last)
    while to_visit:
        task = to_visit.pop()
        if task not in found:
            found[task] = {**task.wired, **wiring.after.get(task, {})}
            to_visit.extend(found[task])
    return found


def unique_aliases(wanted: Iterable[tuple[str, bool]]) -> list[str]:
    """Makes aliases unique, given (alias, whether it is explicit): defaults are numbered."""
    wanted = list(wanted)
    explicit: set[str] = set()
    for alias, is_explicit in wanted:
        if is_explicit and alias in explicit:
            raise GraphError(
                f"Two tasks have the alias {alias!r}: give one of them another, "
                "or leave the alias out and they are numbered."
            )
        if is_explicit:
            explicit.add(alias)
    taken, last = set(explicit), dict[str, int]()
    aliases = []
    for alias, is_explicit in wanted:
        given, number = alias, last.get(alias, 0)
        while not is_explicit and given in taken:
            number += 1
            given = numbered(alias, number)
        last[alias] = number
        taken.add(given)
        aliases.append(given)
    return aliases


def topological_order(after: Mapping[str, Sequence[str]]) -> list[str]:
    """Sorts the keys so that each comes after those it maps to; ties keep the mapping's order.

    Raises GraphError, which names a cycle.
    """
    rank = {name: position for position, name in enumerate(after)}
    waiting = {name: len(set(parents)) for name, parents in after.items()}
    children: dict[str, list[str]] = {name: [] for name in after}
    for name, parents in after.items():
        for parent in set(parents):
            children[parent].append(name)
    ready = [rank[name] for name, count in waiting.items() if not count]
    heapq.heapify(ready)
    names, order = list(after), list[str]()
    while ready:
        name = names[heapq.heappop(ready)]
        order.append(name)
        for child in children[name]:
            waiting[child] -= 1
            if not waiting[child]:
                heapq.heappush(ready, rank[child])
    if len(order) < len(after):
        cycle = _cycle(after, {name for name, count in waiting.items() if count})
        raise GraphError(
            f"The tasks form a cycle, {' -> '.join(cycle)}: a task runs once in an iteration. "
            "Remove a call from the cycle, or make a second Task of the same module; "
            "to repeat tasks, use max_iteration or world.schedule_next_iter()."
        )
    return order


def _cycle(after: Mapping[str, Sequence[str]], stuck: set[str]) -> list[str]:
    """Finds a cycle, in the order in which its tasks would run; all of `stuck` wait for another."""
    path: list[str] = []
    name = next(name for name in after if name in stuck)
    while name not in path:
        path.append(name)
        name = next(parent for parent in after[name] if parent in stuck)
    cycle = path[path.index(name) :][::-1]
    first = cycle.index(next(name for name in after if name in cycle))
    return [*cycle[first:], *cycle[: first + 1]]
