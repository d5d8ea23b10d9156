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
    """One order to one node to run one instance."""

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
    """Where its results stand in the feed."""

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
        """It may still answer."""
        return not self.given_up and self.last.state is not AttemptState.FINISHED

    @property
    def idle(self) -> bool:
        """It has neither answered nor been given up, and nothing runs for it."""
        return self.is_open and self.last.state.final


class Phase(StrEnum):
    """WAITING for the tasks before it -> PLACING -> RUNNING -> DONE."""

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
    """Of a sequential task: those whose turn has not come."""
    waiting: int = 0
    """Of many replicas: those after `queued`, which have no node yet."""
    nodes: tuple[Placement, ...] = ()
    """Where those may run."""
    max_open: int = 1
    """How many may be open at once, while others wait or are in line."""
    shares: tuple[float, ...] = ()
    """Of the work, by rank."""
    placed_at: float = 0.0
    overdue: bool = False
    finished: int = 0
    given_up: int = 0
    has_results: bool = False

    def place(self, placements: Sequence[Placement], waiting: int, now: float) -> None:
        """Its nodes are known; `waiting` instances more than these have none yet."""
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
        """Are its instances tied to their nodes? Others run anywhere."""
        return self.spec.method == "all" and self.spec.replicas is None

    @property
    def size(self) -> int:
        return len(self.instances) + len(self.queued) + self.waiting

    @property
    def has_queued(self) -> bool:
        """There are instances whose turn has not come."""
        return bool(self.queued or self.waiting)
