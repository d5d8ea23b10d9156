"""What a swarm's machine remembers: all of it follows from the events, in their order."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import msgspec

from manta.manager.swarm.exchange import Exchange
from manta.manager.swarm.graph import Graph
from manta.manager.swarm.runs import Attempt, Phase, TaskRun
from manta.protocol.node import Instance
from manta.protocol.spec import SwarmSpec
from manta.protocol.states import SwarmState
from manta.protocol.user import EventItem, MetricsItem, ResultItem
from manta.protocol.values import BlobRef, Inline, Payload

_NOTHING = Inline(b"")
"""The value of a result that was deleted."""


@dataclass
class Ask:
    """A placement that is wanted: of a whole task, or of one of its instances anew."""

    alias: str
    replace: tuple[int, ...] = ()
    problem: str = ""
    since: float | None = None
    """When it was first found unplaceable."""


class Timer(NamedTuple):
    due: float
    kind: str
    """patience, deadline, backstop, again"""
    key: tuple[int | str, ...]


@dataclass
class Global:
    value: Payload
    version: int


@dataclass
class SwarmData:
    swarm_id: str
    cluster_id: str
    spec: SwarmSpec | None = None
    wait: bool = False
    state: SwarmState = SwarmState.PENDING
    reason: str = ""
    last: float = 0.0
    """When the last event that changed something was handled."""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    paused_at: float = 0.0

    iteration: int = -1
    began_at: float = 0.0
    runs: list[dict[str, TaskRun]] = field(default_factory=list)
    """By iteration and alias."""
    open_tasks: int = 0
    """Tasks of this iteration that are not DONE."""
    live: dict[Instance, Attempt] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """Live attempts by node."""
    asks: dict[int, Ask] = field(default_factory=dict)
    asked: int = 0
    timers: list[Timer] = field(default_factory=list)
    within: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes that schedule_next_iter named for this iteration, by alias."""
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes of the first iteration of fixed tasks."""
    gone: set[str] = field(default_factory=set)
    """Nodes that were lost and have not been heard since."""
    self_scheduled: bool = False
    """A task has called schedule_next_iter: from then on the swarm goes on only by that."""

    applied: dict[str, int] = field(default_factory=dict)
    backup: str = ""
    """Of the backup that this log was last restored from."""
    heard_since: set[str] = field(default_factory=set)
    """Nodes that have told something since then."""
    globals: dict[str, Global] = field(default_factory=dict)
    replaced: list[BlobRef] = field(default_factory=list)
    """Values of globals that were overwritten in this iteration: its attempts may be reading
    them."""
    exchange: Exchange = field(default_factory=Exchange)
    results: list[ResultItem] = field(default_factory=list)
    by_tag: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    """Positions in `results` by iteration and tag."""
    deleted: set[int] = field(default_factory=set)
    """Positions of results that a user deleted: their values are gone, their places stay, as
    positions are cursors; who wrote them is still known."""
    lasting: Counter[str] = field(default_factory=Counter)
    """Digest -> how often it is named by what stays as long as the swarm is there."""
    metrics: list[MetricsItem] = field(default_factory=list)
    events: list[EventItem] = field(default_factory=list)

    @cached_property
    def graph(self) -> Graph:
        """Raises RuntimeError before Created."""
        if self.spec is None:
            raise RuntimeError(f"swarm {self.swarm_id} was never created: feed it Created")
        return Graph(self.spec)

    def run_of(self, alias: str) -> TaskRun:
        return self.runs[self.iteration][alias]

    def attempt_of(self, instance: Instance, node_id: str) -> Attempt | None:
        """The attempt, if this node was ever ordered to run it."""
        if instance.swarm_id != self.swarm_id or not 0 <= instance.iteration < len(self.runs):
            return None
        run = self.runs[instance.iteration].get(instance.alias)
        if run is None or not 0 <= instance.index < len(run.instances):
            return None
        attempts = run.instances[instance.index].attempts
        if not 0 <= instance.attempt < len(attempts):
            return None
        attempt = attempts[instance.attempt]
        return attempt if attempt.node_id == node_id else None

    def needs_attempt(self, run: TaskRun, index: int) -> bool:
        """Nothing runs for the instance, and no placement is asked for."""
        return run.instances[index].idle and not any(
            ask.alias == run.spec.alias and index in ask.replace for ask in self.asks.values()
        )

    def add_live(self, attempt: Attempt) -> None:
        node_id = attempt.node_id
        self.live[attempt.instance] = attempt
        self.held[node_id] = self.held.get(node_id, 0) + 1

    def remove_live(self, attempt: Attempt) -> None:
        node_id = attempt.node_id
        del self.live[attempt.instance]
        self.held[node_id] -= 1
        if not self.held[node_id]:
            del self.held[node_id]

    def set_global(self, tag: str, value: Payload) -> None:
        self.keep(value)
        old = self.globals.get(tag)
        if old is not None and isinstance(old.value, BlobRef):
            self.replaced.append(old.value)
        self.globals[tag] = Global(value, old.version + 1 if old else 1)

    def forget_replaced(self) -> list[BlobRef]:
        """The iteration is over: the blobs that nobody reads any more."""
        replaced, self.replaced = self.replaced, []
        self._drop(replaced)
        return replaced

    def keep(self, value: Payload | None) -> None:
        if isinstance(value, BlobRef):
            self.lasting[value.digest] += 1

    def _drop(self, blobs: Iterable[BlobRef]) -> None:
        for blob in blobs:
            self.lasting[blob.digest] -= 1
            if not self.lasting[blob.digest]:
                del self.lasting[blob.digest]

    def needed(self, blobs: Iterable[BlobRef]) -> set[str]:
        """Digests of those of them that something still names."""
        asked = {blob.digest for blob in blobs}
        lasting = {digest for digest in asked if digest in self.lasting}
        if lasting == asked:
            return asked
        return lasting | asked.intersection(blob.digest for blob in self.exchange.blobs())

    def add_result(self, item: ResultItem) -> int:
        self.keep(item.value)
        self.results.append(item)
        position = len(self.results) - 1
        self.by_tag.setdefault((item.iteration, item.tag), []).append(position)
        return position

    def results_of(self, tag: str | None, iteration: int | None) -> list[int]:
        """Positions of those that are there."""
        return [
            position
            for (at, name), positions in self.by_tag.items()
            if tag in (None, name) and iteration in (None, at)
            for position in positions
            if position not in self.deleted
        ]

    def delete_results(self, positions: Iterable[int]) -> list[BlobRef]:
        """The blobs that these held."""
        blobs: list[BlobRef] = []
        for position in positions:
            item = self.results[position]
            self.deleted.add(position)
            self.results[position] = msgspec.structs.replace(item, value=_NOTHING)
            if isinstance(item.value, BlobRef):
                blobs.append(item.value)
        self._drop(blobs)
        return blobs

    def disavow(self, attempt: Attempt) -> None:
        """What it wrote stays readable and counts no more."""
        for position in attempt.written:
            self.results[position] = msgspec.structs.replace(self.results[position], counts=False)

    def counting(self, iteration: int, tag: str) -> list[ResultItem]:
        """One result of each instance that has one which counts, by alias and index."""
        return self._counting(iteration, tag, self.deleted)

    def written(self, iteration: int, tag: str) -> list[ResultItem]:
        """The same, with those that were deleted since: without their values."""
        return self._counting(iteration, tag, ())

    def _counting(self, iteration: int, tag: str, gone: Container[int]) -> list[ResultItem]:
        found = {}
        for position in self.by_tag.get((iteration, tag), ()):
            item = self.results[position]
            if item.counts and position not in gone:
                found[item.alias, item.index] = item
        return [found[key] for key in sorted(found)]

    def set_timer(self, due: float, kind: str, *key: int | str) -> None:
        heapq.heappush(self.timers, Timer(due, kind, key))

    def move_timers(self, later: float) -> None:
        self.timers = [timer._replace(due=timer.due + later) for timer in self.timers]
        heapq.heapify(self.timers)

    def delay_timers(self, now: float, at_least: Mapping[str, float]) -> None:
        """None ends sooner than so many seconds from now, by its kind."""
        self.timers = [
            timer._replace(due=max(timer.due, now + at_least[timer.kind])) for timer in self.timers
        ]
        heapq.heapify(self.timers)

    def is_due(self, now: float) -> bool:
        """A timer has come; while the swarm is paused, none does."""
        timers = self.timers
        return self.state is SwarmState.ACTIVE and bool(timers) and timers[0].due <= now

    def is_valid(self, timer: Timer) -> bool:
        match timer.kind, timer.key:
            case "patience", (int(number),):
                ask = self.asks.get(number)
                return ask is not None and ask.since is not None
            case "deadline", (int(iteration), str(alias)):
                return iteration == self.iteration and self.run_of(alias).phase is Phase.RUNNING
            case "again", (int(iteration), str(alias), int(index)):
                if iteration != self.iteration:
                    return False
                run = self.run_of(alias)
                return run.phase is Phase.RUNNING and self.needs_attempt(run, index)
            case "backstop", (str(alias), int(index), int(iteration), int(attempt)):
                return Instance(self.swarm_id, alias, index, iteration, attempt) in self.live
        return False

    def prune_timers(self) -> None:
        """The first timer is one that still means something, or there is none."""
        while self.timers and (self.state.final or not self.is_valid(self.timers[0])):
            heapq.heappop(self.timers)
