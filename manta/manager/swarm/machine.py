"""Decides everything in the life of one swarm.

Theory of operation. The machine is told events and answers with actions (`events`). What it
remembers (`state`) follows from the events alone: replaying those that were stored gives the
same state. An event that changes nothing is not stored. `counts` tells which those are, and
only an event that counts reaches a handler, so nothing can change without being stored.

One thing leads to another inside a swarm: in each iteration every task of the graph goes
WAITING -> PLACING -> RUNNING -> DONE (`placing`, `completion`), and each instance of a task
that is RUNNING has attempts, one at a time (`attempts`). The swarm's own state:

    PENDING                  --Started-->                              ACTIVE
    ACTIVE                   --Paused-->                               PAUSED
    PAUSED                   --Resumed-->                              ACTIVE
    PENDING, ACTIVE, PAUSED  --Stopped-->                              STOPPED
    ACTIVE, PAUSED           --a task fails beyond retries and quorum-->  FAILED
    ACTIVE                   --an iteration ends, and none follows-->  COMPLETED

The last three are final: nothing runs, and only late results are still recorded.
While PAUSED, what runs goes on and is listened to, but nothing new is placed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from manta.manager.placement.demand import Demand
from manta.manager.swarm import endings, handlers, journal
from manta.manager.swarm.events import (
    Acknowledge,
    Action,
    AskPlacement,
    Created,
    EntriesReceived,
    GlobalSet,
    ManagerRestarted,
    NodeLost,
    Paused,
    Placed,
    Record,
    ResultsDeleted,
    Resumed,
    Rewound,
    Started,
    Stopped,
    SwarmEvent,
    Ticked,
    Unplaceable,
)
from manta.manager.swarm.graph import Graph
from manta.manager.swarm.placing import demand_of
from manta.manager.swarm.state import SwarmData
from manta.manager.swarm.step import Step
from manta.protocol.node import Assignment
from manta.protocol.states import SwarmState
from manta.protocol.values import Payload


class SwarmMachine:
    def __init__(self, swarm_id: str, cluster_id: str) -> None:
        self.data = SwarmData(swarm_id, cluster_id)
        self.revision = 0
        """Grows with each event that changed something: only those need be stored."""

    @classmethod
    def replay(cls, swarm_id: str, cluster_id: str, records: Iterable[Record]) -> SwarmMachine:
        """The machine as it was; feed it ManagerRestarted next, then perform `outstanding`."""
        machine = cls(swarm_id, cluster_id)
        for record in records:
            machine.handle(record.event, record.at)
        return machine

    def handle(self, event: SwarmEvent, now: float) -> list[Action]:
        """`now`: seconds since the epoch that never run backwards (wall clock at the
        manager's start, or the last record's `at` if later, plus monotonic time since)."""
        data = self.data
        step = Step(data, max(now, data.last))
        if counts(data, event, step.now):
            _apply(step, event)
            data.prune_timers()
            data.last = step.now
            self.revision += 1
        elif isinstance(event, EntriesReceived):
            step.act(Acknowledge(event.node_id, self.applied(event.node_id)))
        return step.actions

    @property
    def graph(self) -> Graph:
        return self.data.graph

    @property
    def state(self) -> SwarmState:
        return self.data.state

    @property
    def reason(self) -> str:
        return self.data.reason

    def next_deadline(self) -> float | None:
        """When to feed the next Ticked."""
        if self.data.state is not SwarmState.ACTIVE or not self.data.timers:
            return None
        return self.data.timers[0].due

    def desired(self) -> dict[str, tuple[Assignment, ...]]:
        """What each node shall run now; empty once the swarm is in a final state."""
        found: dict[str, list[Assignment]] = {}
        for attempt in self.data.live.values():
            found.setdefault(attempt.node_id, []).append(attempt.assignment)
        return {node_id: tuple(assignments) for node_id, assignments in found.items()}

    def outstanding(self) -> list[AskPlacement]:
        """Placements that are wanted: perform them after a replay, and when nodes change."""
        return handlers.outstanding(self.data)

    def demand(self, number: int) -> Demand | None:
        """What the placement of that number wants as things stand now, if it is still wanted."""
        ask = self.data.asks.get(number)
        if ask is None or self.data.state is not SwarmState.ACTIVE:
            return None
        return demand_of(self.data, ask.alias, ask.replace)

    def applied(self, node_id: str) -> int:
        """Number of the last journal entry applied of that node, durable or not.

        Registered.acknowledged must say only what was in an Acknowledge that was performed.
        """
        return self.data.applied.get(node_id, 0)

    def global_value(self, tag: str) -> tuple[Payload | None, int]:
        """Value and version; (None, 0) when nobody has set it."""
        found = self.data.globals.get(tag)
        return (found.value, found.version) if found else (None, 0)

    def global_tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.data.globals))


def counts(data: SwarmData, event: SwarmEvent, now: float) -> bool:
    """Whether the event changes anything, and so has to be stored."""
    match event:
        case EntriesReceived():
            return journal.is_news(data, event)
        case Created():
            return data.spec is None
        case Started():
            return data.state is SwarmState.PENDING
        case Paused():
            return data.state is SwarmState.ACTIVE
        case Resumed():
            return data.state is SwarmState.PAUSED
        case Stopped() | GlobalSet() | ManagerRestarted() | Rewound():
            return not data.state.final
        case ResultsDeleted():
            return bool(data.results_of(event.tag, event.iteration))
        case Placed():
            return data.state is SwarmState.ACTIVE and event.number in data.asks
        case Unplaceable():
            ask = data.asks.get(event.number)
            if ask is None or data.state is not SwarmState.ACTIVE:
                return False
            return ask.since is None or ask.problem != event.problem
        case NodeLost():
            if data.state.final or data.iteration < 0:
                return False
            is_known = event.node_id in data.gone
            return not is_known or bool(handlers.hit_by_loss(data, event.node_id))
        case Ticked():
            return data.is_due(now)
        case _:
            assert_never(event)


def _apply(step: Step, event: SwarmEvent) -> None:
    match event:
        case EntriesReceived():
            journal.apply(step, event)
        case Created():
            handlers.created(step, event)
        case Started():
            handlers.started(step)
        case Stopped():
            reason = f"stopped by {event.by}"
            endings.end(step, SwarmState.STOPPED, reason, kill=event.force)
        case Paused():
            handlers.paused(step, event)
        case Resumed():
            handlers.resumed(step, event)
        case GlobalSet():
            step.data.set_global(event.tag, event.value)
        case ResultsDeleted():
            handlers.results_deleted(step, event)
        case Placed():
            handlers.placed(step, event)
        case Unplaceable():
            handlers.unplaceable(step, event)
        case NodeLost():
            handlers.node_lost(step, event)
        case Ticked():
            handlers.ticked(step)
        case ManagerRestarted():
            handlers.restarted(step)
        case Rewound():
            handlers.rewound(step, event.backup)
        case _:
            assert_never(event)
