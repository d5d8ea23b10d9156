"""What runs in an iteration: tasks, their instances, and the attempts of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from manta.manager.placement.place import Placement
from manta.protocol.node import Assignment, Instance, NextIteration, TaskError, Timings
from manta.protocol.spec import Edge, TaskSpec
from manta.protocol.states import AttemptState
from manta.protocol.values import Payload


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

    @property
    def last(self) -> Attempt:
        return self.attempts[-1]

    @property
    def is_open(self) -> bool:
        """Whether it may still answer."""
        return not self.given_up and self.last.state is not AttemptState.FINISHED

    @property
    def idle(self) -> bool:
        """Whether it may still answer, and nothing runs for it."""
        return self.is_open and self.last.state.final


class Phase(StrEnum):
    """Of a task in an iteration; the table is in `placing`."""

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
    queued: deque[Placement] = field(default_factory=deque)
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
