"""The state of a swarm's machine. All of it follows from the events, in their order."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from manta.manager.placement.place import Placement
from manta.manager.swarm import packed
from manta.manager.swarm.exchange import Exchange
from manta.manager.swarm.graph import Graph
from manta.manager.swarm.packed import Packed
from manta.manager.swarm.staying import Staying
from manta.protocol.node import (
    Assignment,
    DatasetUsed,
    GlobalRead,
    Instance,
    NextIteration,
    TaskError,
    Timings,
)
from manta.protocol.spec import Edge, SwarmSpec, TaskSpec
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.user import EventItem, MetricsItem, ResultItem
from manta.protocol.values import BlobRef, Inline, Payload

PAGE = 256
"""Items of a feed that are packed together."""
RECENT = 3
"""Iterations that are not packed; only in the last one can an attempt be live."""

_NOTHING = Inline(b"")
"""The value of a deleted result."""


@dataclass
class Attempt:
    """One run of an instance on a node."""

    assignment: Assignment
    node_alias: str
    placed_at: float
    state: AttemptState = AttemptState.PLACED
    started_at: float | None = None
    ended_at: float | None = None
    output: Payload | None = None
    error: TaskError | None = None
    timings: Timings | None = None
    progress: float | None = None
    published: tuple[float, float] = (-1.0, 0.0)
    """Fraction and time of the progress last published."""
    nexts: list[NextIteration] = field(default_factory=list)
    stops: bool = False
    written: list[int] = field(default_factory=list)
    """Positions of its results in the feed."""
    datasets: tuple[DatasetUsed, ...] = ()
    reads: tuple[GlobalRead, ...] = ()
    """Globals that it has read."""
    held_at: float | None = None
    """When its node's owner was asked whether it may run; None unless that is waited for."""

    @property
    def instance(self) -> Instance:
        return self.assignment.instance

    @property
    def node_id(self) -> str:
        return self.assignment.node_id


@dataclass
class InstanceRun:
    """One instance of a task in one iteration, through all its attempts."""

    attempts: list[Attempt] = field(default_factory=list)
    failures: int = 0
    interruptions: int = 0
    given_up: str = ""
    """Why it will not answer any more."""
    losses: int = 0
    """How often the node of its last attempt was lost."""

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def stay(self) -> int:
        """Grows each time that it has come to a node, or its node was lost."""
        node_id, first = self.last.node_id, len(self.attempts) - 1
        while first and self.attempts[first - 1].node_id == node_id:
            first -= 1
        return first + self.losses

    @property
    def is_open(self) -> bool:
        """Whether it may still answer."""
        return not self.given_up and self.last.state is not AttemptState.FINISHED

    @property
    def idle(self) -> bool:
        """Whether it may still answer, and nothing runs for it."""
        return self.is_open and self.last.state.final


class Phase(StrEnum):
    """Of a task in an iteration; the table is in `phases`."""

    WAITING = "WAITING"
    PLACING = "PLACING"
    RUNNING = "RUNNING"
    DONE = "DONE"


@dataclass
class TaskRun:
    """One task in one iteration."""

    spec: TaskSpec
    before: tuple[Edge, ...] = ()
    sequential: bool = False
    phase: Phase = Phase.WAITING
    instances: list[InstanceRun] = field(default_factory=list)
    queued: list[Placement] = field(default_factory=list)
    """Nodes of the next instances of a sequential task, whose turn has not come."""
    waiting: int = 0
    """Further instances of a task with many replicas, which have no node yet."""
    nodes: tuple[Placement, ...] = ()
    """Where the waiting instances may run."""
    max_open: int = 1
    """How many instances may be open at once while others are queued or waiting."""
    shares: tuple[float, ...] = ()
    """Parts of the work, by rank."""
    placed_at: float = 0.0
    overdue: bool = False
    finished: int = 0
    given_up: int = 0
    has_results: bool = False

    def place(self, placements: Sequence[Placement], waiting: int, now: float) -> None:
        """Takes over the nodes that were found; `waiting` further instances have none yet."""
        self.phase, self.placed_at = Phase.RUNNING, now
        if self.sequential:
            self.queued.extend(placements)
        else:
            self.instances = [InstanceRun() for _ in placements]
            self.max_open = len(placements)
        if waiting:
            self.waiting = waiting
            first = {placed.node_id: placed for placed in reversed(placements)}
            self.nodes = tuple(sorted(first.values(), key=lambda placed: placed.index))

    @property
    def bound(self) -> bool:
        """Whether its instances are tied to their nodes; others may run anywhere."""
        return self.spec.method == "all" and self.spec.replicas is None

    @property
    def size(self) -> int:
        return len(self.instances) + len(self.queued) + self.waiting

    @property
    def has_queued(self) -> bool:
        """Whether there are instances whose turn has not come."""
        return bool(self.queued or self.waiting)


@dataclass
class Ask:
    """A placement that is wanted: of a whole task, or of one of its instances again."""

    alias: str
    replace: tuple[int, ...] = ()
    problem: str = ""
    since: float | None = None
    """When it was first found unplaceable."""


class Timer(NamedTuple):
    """What it means shows in `SwarmData.is_valid`, and what it does in `machine`."""

    due: float
    kind: str
    """patience, deadline, backstop or again"""
    key: tuple[int | str, ...]


class Global(NamedTuple):
    value: Payload | None
    version: int


UNSET = Global(None, 0)


# The decoders are made here, once, and shared: see `transports.codec.decoders`.
_RUNS = packed.decoder(dict[str, TaskRun])
_RESULTS = packed.decoder(ResultItem)
_METRICS = packed.decoder(MetricsItem)
_EVENTS = packed.decoder(EventItem)
_BY_TAG = packed.decoder(dict[str, list[int]])
_SETTLED = packed.decoder(int)


@dataclass
class SwarmData:
    swarm_id: str
    cluster_id: str
    spec: SwarmSpec | None = None
    wait: bool = False
    direct: bool = False
    """What its tasks say to each other goes from node to node."""
    state: SwarmState = SwarmState.PENDING
    reason: str = ""
    last: float = 0.0
    """When the last stored event was handled."""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None
    paused_at: float = 0.0
    """When it last stood still, paused or without a manager: until when, once it goes on."""

    iteration: int = -1
    began_at: float = 0.0
    runs: Packed[dict[str, TaskRun]] = field(default_factory=lambda: Packed(_RUNS, 1, RECENT))
    """By iteration and alias."""
    open_tasks: int = 0
    """Tasks of this iteration that are not DONE."""
    live: dict[Instance, Attempt] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    """Live attempts by node."""
    given: set[str] = field(default_factory=set)
    """Nodes that were ever given an attempt."""
    asks: dict[int, Ask] = field(default_factory=dict)
    asked: int = 0
    """How many placements were ever asked for; the last number given out."""
    timers: list[Timer] = field(default_factory=list)
    within: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes that schedule_next_iter named for this iteration, by alias."""
    kept: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Nodes of fixed tasks, as of their first iteration."""
    gone: set[str] = field(default_factory=set)
    """Nodes that were lost and have not been heard from since."""
    self_scheduled: bool = False
    """A task has called schedule_next_iter: from then on only such calls begin an iteration."""

    applied: dict[str, int] = field(default_factory=dict)
    """By node: the number of the last journal entry that was applied."""
    backup: str = ""
    """Id of the backup that the log was last restored from."""
    heard_since: set[str] = field(default_factory=set)
    """Nodes that have registered or sent entries since then, or were first given an attempt."""
    globals: dict[str, Global] = field(default_factory=dict)
    replaced: list[BlobRef] = field(default_factory=list)
    """Values of globals that were overwritten in this iteration: attempts may still read them."""
    full: bool = False
    """It has used up a quota that it relies on: nothing more is kept."""
    exchange: Exchange = field(default_factory=Exchange)
    results: Packed[ResultItem] = field(default_factory=lambda: Packed(_RESULTS, PAGE))
    by_tag: Packed[dict[str, list[int]]] = field(default_factory=lambda: Packed(_BY_TAG, PAGE))
    """Positions in `results` by iteration and tag."""
    settled: Packed[int] = field(default_factory=lambda: Packed(_SETTLED, PAGE))
    """Positions in `results` of those whose attempts have ended and that count, in the order in
    which the attempts ended. It only grows."""
    deleted: set[int] = field(default_factory=set)
    """Positions of results that a user deleted. They stay in `results` without their values, as
    positions are cursors, and who wrote them is still needed."""
    asks_owners: bool = False
    """Attempts have waited for owners of nodes."""
    staying: Staying = field(default_factory=Staying)
    lasting: Counter[str] = field(default_factory=Counter)
    """By digest: how often a blob is named by what stays as long as the swarm exists."""
    progressed: int = 0
    """How often attempts have reported progress."""
    metrics: Packed[MetricsItem] = field(default_factory=lambda: Packed(_METRICS, PAGE))
    events: Packed[EventItem] = field(default_factory=lambda: Packed(_EVENTS, PAGE))

    @property
    def packed(self) -> dict[str, Packed[Any]]:
        return {
            "runs": self.runs,
            "results": self.results,
            "by_tag": self.by_tag,
            "settled": self.settled,
            "metrics": self.metrics,
            "events": self.events,
        }

    def settle(self) -> None:
        """Packs what was changed in the past; the objects that were got from there are stale."""
        for one in self.packed.values():
            one.settle()

    @cached_property
    def graph(self) -> Graph:
        """Raises RuntimeError before Created."""
        if self.spec is None:
            raise RuntimeError(f"swarm {self.swarm_id} was never created: feed it Created")
        return Graph(self.spec)

    def run_of(self, alias: str) -> TaskRun:
        return self.runs[self.iteration][alias]

    def run_before(self, alias: str) -> TaskRun | None:
        """The task's run in the iteration before this one."""
        return self.runs[self.iteration - 1].get(alias) if self.iteration > 0 else None

    def attempt_of(self, instance: Instance, node_id: str) -> Attempt | None:
        """The attempt, if it was ever assigned to this node."""
        try:
            run = self.runs[instance.iteration][instance.alias]
            attempt = run.instances[instance.index].attempts[instance.attempt]
        except LookupError:
            return None
        return attempt if attempt.instance == instance and attempt.node_id == node_id else None

    def asked_again(self) -> Iterator[tuple[str, int]]:
        """The instances, by alias and index, for which another placement is asked for."""
        return ((ask.alias, index) for ask in self.asks.values() for index in ask.replace)

    def add_live(self, attempt: Attempt) -> None:
        node_id = attempt.node_id
        if self.backup and node_id not in self.given:  # what it has to tell came after that
            self.heard_since.add(node_id)
        self.given.add(node_id)
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
        old = self.globals.get(tag, UNSET)
        if isinstance(old.value, BlobRef):
            self.replaced.append(old.value)
        self.globals[tag] = Global(value, old.version + 1)

    def forget_replaced(self) -> list[BlobRef]:
        """Ends the protection of overwritten globals, and returns their blobs."""
        replaced, self.replaced = self.replaced, []
        self._drop(replaced)
        return replaced

    def keep(self, value: Payload | None) -> None:
        """If the value is a blob, the swarm needs it from now on."""
        if isinstance(value, BlobRef):
            self.lasting[value.digest] += 1

    def _drop(self, blobs: Iterable[BlobRef]) -> None:
        for blob in blobs:
            self.lasting[blob.digest] -= 1
            if not self.lasting[blob.digest]:
                del self.lasting[blob.digest]

    def needed(self, blobs: Iterable[BlobRef]) -> set[str]:
        """Digests of those blobs that something still names."""
        asked = {blob.digest for blob in blobs}
        lasting = {digest for digest in asked if digest in self.lasting}
        if lasting == asked:
            return asked
        return lasting | (asked & self.exchange.blobs.keys())

    def add_result(self, item: ResultItem) -> int:
        """Returns its position in the feed."""
        if item.held:
            self.staying.added(item)
        else:
            self.keep(item.value)
        self.results.append(item)
        position = len(self.results) - 1
        while len(self.by_tag) <= item.iteration:
            self.by_tag.append({})
        self.by_tag[item.iteration].setdefault(item.tag, []).append(position)
        return position

    def results_of(self, tag: str | None, iteration: int | None) -> list[int]:
        """Positions of the results that are not deleted; None stands for all."""
        return [
            position
            for by_tag in (self.by_tag if iteration is None else self._by_tag_in(iteration))
            for name, positions in by_tag.items()
            if tag in (None, name)
            for position in positions
            if position not in self.deleted
        ]

    def result_tags(self) -> list[str]:
        """Tags of the results that are not deleted, in order."""
        found = (item for by_tag in self.by_tag for item in by_tag.items())
        return sorted({tag for tag, at in found if not self.deleted.issuperset(at)})

    def written(self, iteration: int, tag: str) -> Iterator[tuple[int, ResultItem]]:
        """The results of an iteration by their positions, also those that were deleted."""
        positions = [at for by_tag in self._by_tag_in(iteration) for at in by_tag.get(tag, ())]
        return zip(positions, self.results.at(positions), strict=True)

    def _by_tag_in(self, iteration: int) -> Iterator[dict[str, list[int]]]:
        """That of the iteration, if it has any results."""
        return self.by_tag.between(max(0, iteration), iteration + 1)

    def delete_results(
        self, positions: Iterable[int]
    ) -> tuple[list[BlobRef], dict[str, list[str]]]:
        """Deletes the values of these results, and returns their blobs, and by node the digests of
        those that stayed there."""
        blobs: list[BlobRef] = []
        freed: dict[str, list[str]] = {}
        for position in positions:
            item = self.results[position]
            self.deleted.add(position)
            self.results[position] = msgspec.structs.replace(item, value=_NOTHING, held=False)
            if isinstance(item.value, BlobRef):
                if not item.held:
                    blobs.append(item.value)
                elif self.staying.deleted(item):
                    freed.setdefault(item.node_id, []).append(item.value.digest)
        self._drop(blobs)
        return blobs, freed

    def count_results_of(self, attempt: Attempt) -> None:
        """The attempt has ended, and the results that it wrote count."""
        self.settled.extend(attempt.written)

    def disavow(self, attempt: Attempt) -> None:
        """The results that the attempt wrote stay readable, but no longer count."""
        for position in attempt.written:
            self.results[position] = msgspec.structs.replace(self.results[position], counts=False)

    def counting(self, iteration: int, tag: str, *, even_deleted: bool = False) -> list[ResultItem]:
        """One result of each instance that has one which counts, ordered by alias and index.

        `even_deleted`: with those that were deleted since, without their values.
        """
        found = {}
        for position, item in self.written(iteration, tag):
            if item.counts and (even_deleted or position not in self.deleted):
                found[item.alias, item.index] = item
        return [found[key] for key in sorted(found)]

    def set_timer(self, due: float, kind: str, *key: int | str) -> None:
        heapq.heappush(self.timers, Timer(due, kind, key))

    def move_timers(self, due: Callable[[Timer], float]) -> None:
        self.timers = [timer._replace(due=due(timer)) for timer in self.timers]
        heapq.heapify(self.timers)

    def is_due(self, now: float) -> bool:
        """Whether a timer has ended; while the swarm is paused, none does."""
        timers = self.timers
        return self.state is SwarmState.ACTIVE and bool(timers) and timers[0].due <= now

    def is_valid(self, timer: Timer) -> bool:
        """Whether what the timer waits for can still happen."""
        match timer.kind, timer.key:
            case "patience", (int(number),):
                return number in self.asks
            case "deadline", (int(iteration), str(alias), *answered):
                run = self.runs[iteration][alias]
                return run.phase is Phase.RUNNING and answered in ([], [run.finished])
            case "again", (int(iteration), str(alias), int(index)):
                run = self.runs[iteration][alias]
                is_due = run.phase is Phase.RUNNING and run.instances[index].idle
                return is_due and (alias, index) not in self.asked_again()
            case "backstop", (str(alias), int(index), int(iteration), int(attempt)):
                return Instance(self.swarm_id, alias, index, iteration, attempt) in self.live
        return False

    def prune_timers(self) -> None:
        """Afterwards the first timer is valid, or there is none."""
        while self.timers and (self.state.final or not self.is_valid(self.timers[0])):
            heapq.heappop(self.timers)
