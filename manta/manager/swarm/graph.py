"""What a swarm's description says of its tasks, and which come after which."""

from __future__ import annotations

from collections.abc import Iterable

from manta.protocol.spec import Edge, ScheduleEntry, SignedOrder, SwarmSpec


class Layout:
    """The tasks of an iteration, and those that each comes after."""

    def __init__(self, before: dict[str, tuple[Edge, ...]], sequential: Iterable[str] = ()) -> None:
        self.before = before
        self.sequential = frozenset(sequential)
        self.roots = tuple(alias for alias, edges in before.items() if not edges)
        self.after: dict[str, list[str]] = {alias: [] for alias in before}
        for alias, edges in before.items():
            for edge in edges:
                self.after[edge.alias].append(alias)

    @classmethod
    def of_entries(cls, entries: tuple[ScheduleEntry, ...]) -> Layout:
        """For an iteration of a schedule: each entry comes after the one before it."""
        before: dict[str, tuple[Edge, ...]] = {}
        edges: tuple[Edge, ...] = ()
        for entry in entries:
            before.update(dict.fromkeys(entry.aliases, edges))
            edges = tuple(Edge(alias) for alias in entry.aliases)
        return cls(before, (alias for e in entries if e.sequential for alias in e.aliases))


class Graph:
    """A swarm's description, laid out for look-ups."""

    def __init__(self, spec: SwarmSpec) -> None:
        self.spec = spec
        self.tasks = {task.alias: task for task in spec.tasks}
        self.modules = {module.name: module for module in spec.modules}
        self.networks = {network.name: network for network in spec.networks}
        self.before_random: dict[str, tuple[int | float, ...]] = {}
        """By alias: maximums of the random tasks that come before it (`Demand.before`)."""
        maximums: tuple[int | float, ...] = ()
        for task in spec.tasks:
            self.before_random[task.alias] = maximums
            if task.method == "random":
                maximums = (*maximums, task.maximum)
        limits = [limit for limit in (spec.max_iteration, len(spec.schedule)) if limit]
        self.ceiling = min(limits, default=None)
        """The maximal number of iterations; None when there is no limit."""
        self._always = Layout({task.alias: task.after for task in spec.tasks})
        self._scheduled = {entries: Layout.of_entries(entries) for entries in set(spec.schedule)}

    def signed(self, alias: str) -> SignedOrder | None:
        """What goes with orders for the task; None if nobody has signed it."""
        signed, signature = self.spec.signed, self.tasks[alias].signature
        if signed is None:
            return None
        return SignedOrder(signed, signature, self.spec.description)

    def layout(self, iteration: int) -> Layout:
        schedule = self.spec.schedule
        return self._scheduled[schedule[iteration]] if schedule else self._always
