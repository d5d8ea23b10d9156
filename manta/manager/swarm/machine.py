"""Decides everything in the life of one swarm.

Theory of operation. The machine is told events and answers with actions (both in
`swarm_events`); what it remembers is in `swarm_state`, how one thing follows from
another inside a swarm is in `swarm_course`, and what nodes tell in `swarm_entries`. The
swarm's state:

    PENDING                  --Started-->                              ACTIVE
    ACTIVE                   --Paused-->                               PAUSED
    PAUSED                   --Resumed-->                              ACTIVE
    PENDING, ACTIVE, PAUSED  --Stopped-->                              STOPPED
    ACTIVE, PAUSED           --a task fails beyond retries and quorum-->  FAILED
    ACTIVE                   --an iteration ends, and none follows-->  COMPLETED

The last three are final: nothing runs, and only late results are still taken down.
PAUSED, what runs goes on and is listened to, but nothing new is placed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import assert_never

from manta.manager.placement.place import Demand
from manta.manager.swarm import words
from manta.manager.swarm.entries import Entries
from manta.manager.swarm.events import (
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
from manta.manager.swarm.state import Ask, Graph, Phase
from manta.protocol.node import Assignment
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.values import Payload

PATIENCE = 60.0
"""Seconds for which a swarm that was placeable waits for nodes."""
RESTART_MERCY = {"deadline": 20.0, "again": 0.0, "patience": 60.0, "backstop": 90.0}
"""Seconds after a manager's restart in which no such timer ends: nodes must come back first,
and one that does not is lost by its lease before an attempt on it counts as silent."""


class SwarmMachine(Entries):
    def __init__(self, swarm_id: str, cluster_id: str) -> None:
        super().__init__(swarm_id, cluster_id)
        self.revision = 0
        """Grows with each event that changed something: only those need be stored."""

    @classmethod
    def replay(cls, swarm_id: str, cluster_id: str, records: Iterable[Record]) -> SwarmMachine:
        """The machine as it was; feed it ManagerRestarted next, then perform `outstanding`."""
        machine = cls(swarm_id, cluster_id)
        for record in records:
            machine.handle(record.event, record.at)
        return machine

    @property
    def state(self) -> SwarmState:
        return self.data.state

    @property
    def reason(self) -> str:
        return self.data.reason

    def handle(self, event: SwarmEvent, now: float) -> list[Action]:
        """`now`: seconds since the epoch that never run backwards (wall clock at the
        manager's start, or the last record's `at` if later, plus monotonic time since)."""
        self._actions = []
        self._changed = False
        self._now = max(now, self.data.last)
        match event:
            case Created():
                self._created(event)
            case Started():
                self._started()
            case Stopped():
                self._end(SwarmState.STOPPED, f"stopped by {event.by}", kill=event.force)
            case Paused():
                self._paused(event)
            case Resumed():
                self._resumed(event)
            case GlobalSet():
                if not self.data.state.final:
                    self._changed = True
                    self.data.set_global(event.tag, event.value)
            case ResultsDeleted():
                self._results_deleted(event)
            case Placed():
                self._placed(event)
            case Unplaceable():
                self._unplaceable(event)
            case EntriesReceived():
                self._entries(event)
            case NodeLost():
                self._node_lost(event)
            case Ticked():
                self._ticked()
            case ManagerRestarted():
                self._restarted()
            case Rewound(backup):
                self._rewound(backup)
            case _:
                assert_never(event)
        if self._changed:
            self.data.prune_timers()
            self.data.last = self._now
            self.revision += 1
        return self._actions

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
        if self.data.state is not SwarmState.ACTIVE:
            return []
        return [AskPlacement(number) for number in self.data.asks]

    def global_value(self, tag: str) -> tuple[Payload | None, int]:
        """Value and version; (None, 0) when nobody has set it."""
        found = self.data.globals.get(tag)
        return (found.value, found.version) if found else (None, 0)

    def global_tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.data.globals))

    def demand(self, number: int) -> Demand | None:
        """What the placement of that number wants as things stand now, if it is still wanted."""
        ask = self.data.asks.get(number)
        if ask is None or self.data.state is not SwarmState.ACTIVE:
            return None
        return self.demand_of(ask.alias, ask.replace)

    # What users do.

    def _created(self, event: Created) -> None:
        if self.data.spec is not None:
            return
        self._changed = True
        self._graph = Graph(event.spec)
        self.data.spec, self.data.wait = event.spec, event.wait
        self.data.created_at = self._now
        self.data.reason = "not started"
        for module in event.spec.modules:
            self.data.keep(module.package)
        for tag, value in event.spec.globals.items():
            self.data.set_global(tag, value)

    def _started(self) -> None:
        if self.data.state is not SwarmState.PENDING:
            return
        self.data.started_at = self._now
        self._enter(SwarmState.ACTIVE, "")
        self._begin_iteration({})

    def _paused(self, event: Paused) -> None:
        if self.data.state is SwarmState.ACTIVE:
            self.data.paused_at = self._now
            self._enter(SwarmState.PAUSED, f"paused by {event.by}")

    def _resumed(self, event: Resumed) -> None:
        if self.data.state is not SwarmState.PAUSED:
            return
        self._spare_the_pause()
        self._enter(SwarmState.ACTIVE, words.waiting(self.data.asks.values()))
        self._actions += self.outstanding()
        for alias, run in self.data.runs[self.data.iteration].items():
            self._begin_if_ready(alias)
            asked = {
                index
                for ask in self.data.asks.values()
                for index in ask.replace
                if ask.alias == alias
            }
            for index, instance in enumerate(run.instances):
                if run.phase is Phase.RUNNING and instance.idle and index not in asked:
                    self._again(run, index)
            self._next_in_line(run)
        self._after_iteration()

    def _spare_the_pause(self) -> None:
        self.data.move_timers(self._now - self.data.paused_at)
        self.data.paused_at = self._now

    def _results_deleted(self, event: ResultsDeleted) -> None:
        if positions := self.data.results_of(event.tag, event.iteration):
            self._release(self.data.delete_results(positions), deleted=True)
            self._tell("deleted", words.deleted(len(positions), event))

    def _restarted(self) -> None:
        """The new manager's clock may be minutes from the old one's."""
        self._changed = not self.data.state.final
        if self.data.state is SwarmState.PAUSED:
            self._spare_the_pause()
        else:
            self.data.delay_timers(self._now, RESTART_MERCY)

    # What placement answers.

    def _placed(self, event: Placed) -> None:
        if self.data.state is not SwarmState.ACTIVE or event.number not in self.data.asks:
            return
        self._changed = True
        ask = self.data.asks.pop(event.number)
        self.data.reason = words.waiting(self.data.asks.values())
        run = self.data.run_of(ask.alias)
        if not ask.replace:
            run.place(event.placements, event.waiting, self._now)
            run.shares = self._shares(run)
            if run.spec.fixed:
                nodes = tuple(placed.node_id for placed in event.placements)
                self.data.kept.setdefault(ask.alias, nodes)
            if run.spec.deadline is not None:
                due = self._now + run.spec.deadline
                self.data.set_timer(due, "deadline", self.data.iteration, ask.alias)
        self._tell("placed", words.placed(ask, event.placements, event.waiting), ask.alias)
        if run.sequential and not ask.replace:
            self._next_in_line(run)
            return
        for placement in event.placements:
            self._assign(run, placement)

    def _unplaceable(self, event: Unplaceable) -> None:
        ask = self.data.asks.get(event.number)
        if ask is None or self.data.state is not SwarmState.ACTIVE:
            return
        if ask.since is None:
            self._changed = True
            ask.since = self._now
            if not self.data.wait:
                self.data.set_timer(self._now + PATIENCE, "patience", event.number)
        if ask.problem != event.problem:
            self._changed = True
            ask.problem = event.problem
            self.data.reason = words.waiting(self.data.asks.values())
            self._tell("waiting", event.problem, ask.alias)

    # What the cluster tells, and time.

    def _node_lost(self, event: NodeLost) -> None:
        data = self.data
        if self.state.final or data.iteration < 0:
            return
        if event.node_id not in data.gone:
            self._changed = True
            data.gone.add(event.node_id)
        hit = [
            (run, index)
            for run in data.runs[data.iteration].values()
            if run.phase is Phase.RUNNING
            for index, instance in enumerate(run.instances)
            if instance.last.node_id == event.node_id
            and (instance.last.instance in data.live or (run.bound and instance.idle))
        ]
        if not hit:
            return
        self._changed = True
        attempts = [run.instances[index].last for run, index in hit]
        self._tell("lost", words.lost(attempts, event.reason))
        for run, index in hit:
            if data.state.final or run.phase is not Phase.RUNNING:
                continue  # by one before it, the swarm failed or the task was done
            self._lose(run, index, event.reason)

    def _ticked(self) -> None:
        data = self.data
        while data.state is SwarmState.ACTIVE and data.timers and data.timers[0].due <= self._now:
            timer = heapq.heappop(data.timers)
            self._changed = True
            if not data.is_valid(timer):
                continue
            match timer.kind, timer.key:
                case "patience", (int(number),):
                    self._out_of_patience(data.asks.pop(number))
                case "deadline", (int(), str(alias)):
                    data.run_of(alias).overdue = True
                    self._settle(data.run_of(alias))
                case "again", (int(), str(alias), int(index)):
                    self._again(data.run_of(alias), index)
                case "backstop", (str(alias), int(index), *_):
                    attempt = data.run_of(alias).instances[index].last
                    attempt.error = words.silent(attempt)
                    self._attempt_ended(attempt, AttemptState.TIMEOUT)

    def _out_of_patience(self, ask: Ask) -> None:
        why = words.out_of_patience(ask, PATIENCE)
        if not ask.replace:
            self._fail(f"{why}.")
        for index in ask.replace:
            self._give_up(self.data.run_of(ask.alias), index, why)
