"""Decides everything in the life of one swarm.

Theory of operation. The machine handles events and answers with actions (`events`). Its state
(`state`) follows from the events alone: replaying those that were stored gives the same state.
An event that changes nothing is not stored: `_apply` says which those are.

In each iteration every task of the graph goes through its phases (`phases`), and
each instance of a task that is RUNNING has attempts, one at a time (`attempts`). The
swarm's own states:

    PENDING                  --Started-->                                 ACTIVE
    ACTIVE                   --Paused-->                                  PAUSED
    PAUSED                   --Resumed-->                                 ACTIVE
    PENDING, ACTIVE, PAUSED  --Stopped-->                                 STOPPED
    ACTIVE, PAUSED           --a task fails beyond retries and quorum-->  FAILED
    ACTIVE                   --an iteration ends, and none follows-->     COMPLETED

The last three are final: nothing runs, and only late results are still recorded. While the
swarm is PAUSED, live attempts continue and are listened to, but nothing new is placed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Self

import msgspec

from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import WINDOW, place
from manta.manager.swarm import attempts, events, journal, phases, sentences
from manta.manager.swarm.roster import roster_of
from manta.manager.swarm.state import UNSET, Ask, Phase, SwarmData, TaskRun
from manta.manager.swarm.step import Step
from manta.protocol.node import Assignment, TaskError
from manta.protocol.roster import Roster
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.values import Payload

PATIENCE = 60.0
"""Seconds for which a swarm waits for nodes, unless it was created to wait."""
RESTART_GRACE = {"deadline": 20.0, "again": 0.0, "patience": 60.0, "backstop": 90.0}
"""Seconds after a manager's restart in which no such timer ends: nodes must come back first,
and one that does not is lost by its lease before an attempt on it counts as silent."""


class SwarmMachine:
    def __init__(self, swarm_id: str, cluster_id: str) -> None:
        self.data = SwarmData(swarm_id, cluster_id)
        self.revision = 0
        """Grows by one with each event that changes the state: only those have to be stored, and
        it is the number of the last one."""
        self._roster: tuple[int, Roster] | None = None
        """As it was asked for last, and at which revision."""

    @classmethod
    def replay(
        cls,
        swarm_id: str,
        cluster_id: str,
        records: Iterable[events.Record],
        snapshot: tuple[SwarmData, int] | None = None,
    ) -> Self:
        """The machine as it was; `records` follow those of the snapshot. Feed it ManagerRestarted
        next, then perform `outstanding`."""
        machine = cls(swarm_id, cluster_id)
        if snapshot is not None:
            machine.data, machine.revision = snapshot
        machine.go_on(records)
        return machine

    def go_on(self, records: Iterable[events.Record]) -> None:
        """Replays what was stored after what it knows."""
        for number, record in enumerate(records, self.revision + 1):
            self.handle(record.event, record.at)
            self.revision = number  # also if this version ignores the event

    def handle(self, event: events.SwarmEvent, now: float) -> list[events.Action]:
        """Handles one event. `now` is in seconds since the epoch and never runs backwards: wall
        clock at the manager's start, or the last record's `at` if later, plus monotonic time."""
        data = self.data
        data.settle()
        step = Step(data, max(now, data.last))
        if _apply(step, event):
            data.prune_timers()
            data.last = step.now
            self.revision += 1
        return step.actions

    @property
    def state(self) -> SwarmState:
        return self.data.state

    def next_deadline(self) -> float | None:
        """When to feed the next Ticked."""
        if self.data.state is not SwarmState.ACTIVE or not self.data.timers:
            return None
        return self.data.timers[0].due

    def desired(self) -> dict[str, tuple[Assignment, ...]]:
        """What each node should run now; empty once the swarm is in a final state."""
        found: dict[str, list[Assignment]] = {}
        for attempt in self.data.live.values():
            assignment = attempt.assignment
            if attempt.started_at is not None:
                assignment = msgspec.structs.replace(assignment, begun=True)
            found.setdefault(attempt.node_id, []).append(assignment)
        return {node_id: tuple(assignments) for node_id, assignments in found.items()}

    def outstanding(self) -> list[events.AskPlacement]:
        """Placements that are wanted: perform them after a replay, and when nodes change."""
        if self.data.state is not SwarmState.ACTIVE:
            return []
        return [events.AskPlacement(number) for number in self.data.asks]

    def answer(
        self, number: int, nodes: Sequence[NodeView], window: int = WINDOW
    ) -> events.Placed | events.Unplaceable | None:
        """The event that answers AskPlacement(number); None when it is no longer wanted."""
        ask = self.data.asks.get(number)
        if ask is None or self.data.state is not SwarmState.ACTIVE:
            return None
        outcome = place(phases.demand_of(self.data, ask.alias, ask.replace), nodes, window)
        if outcome.problems:
            return events.Unplaceable(number, outcome.problems[0])
        return events.Placed(number, outcome.placements, outcome.waiting)

    def applied(self, node_id: str) -> int:
        """The number of the last journal entry of that node that was applied, durable or not: a
        node is told only what was in an Acknowledge that was performed."""
        return self.data.applied.get(node_id, 0)

    def roster(self) -> Roster:
        """Of this iteration, without the places of nodes."""
        if self._roster is None or self._roster[0] != self.revision:
            self._roster = self.revision, roster_of(self.data)
        return self._roster[1]

    def members(self) -> dict[str, int]:
        """The nodes that were given attempts in this iteration or the one before, each with the
        last of the two."""
        now = self.data.iteration
        return {
            attempt.node_id: iteration
            for iteration in range(max(0, now - 1), now + 1)
            for run in self.data.runs[iteration].values()
            for instance in run.instances
            for attempt in instance.attempts
        }

    def global_value(self, tag: str) -> tuple[Payload | None, int]:
        """Value and version; (None, 0) when nobody has set it."""
        return self.data.globals.get(tag, UNSET)

    def global_tags(self) -> tuple[str, ...]:
        return tuple(sorted(self.data.globals))


def _apply(step: Step, event: events.SwarmEvent) -> bool:
    """Applies the event where its condition holds, and returns whether it changed anything: only
    then has it to be stored."""
    data = step.data
    active = data.state is SwarmState.ACTIVE
    match event:
        case events.EntriesReceived():
            return journal.apply(step, event)
        case events.Placed() if active and event.number in data.asks:
            _placed(step, event)
        case events.Unplaceable() if active and event.number in data.asks:
            return _unplaceable(step, event)
        case events.QuotaReached() if not data.full and (event.fatal or not data.state.final):
            step.tell("quota", event.sentence)
            if event.fatal:
                data.full = True
                step.fail(event.sentence)
                if event.upto > data.applied.get(event.node_id, 0):
                    data.applied[event.node_id] = event.upto
                    step.act(events.Acknowledge(event.node_id, event.upto))
        case events.NodeLost() if data.runs and not data.state.final:
            return _node_lost(step, event)
        case events.Ticked() if data.is_due(step.now):
            _ticked(step)
        case events.Created() if data.spec is None:
            _created(step, event)
        case events.Started() if data.state is SwarmState.PENDING:
            data.started_at = step.now
            step.enter(SwarmState.ACTIVE, "")
            phases.begin_iteration(step, {})
        case events.Paused() if active:
            data.paused_at = step.now
            step.enter(SwarmState.PAUSED, f"paused by {event.by}")
        case events.Resumed() if data.state is SwarmState.PAUSED:
            _resumed(step)
        case events.Stopped() if not data.state.final:
            step.end(SwarmState.STOPPED, f"stopped by {event.by}", kill=event.force)
        case events.GlobalSet() if not data.state.final:
            data.set_global(event.tag, event.value)
        case events.ResultsDeleted() if positions := data.results_of(event.tag, event.iteration):
            blobs, freed = data.delete_results(positions)
            step.release(blobs, deleted=True)
            step.actions += (events.Freed(id_, tuple(digests)) for id_, digests in freed.items())
            step.tell("deleted", sentences.deleted(len(positions), event))
        case events.ManagerRestarted() if not data.state.final:
            _restarted(step)
        case events.Rewound() if not data.state.final:
            return _rewound(step, event)
        case _:
            return False
    return True


# What users do.


def _created(step: Step, event: events.Created) -> None:
    data = step.data
    data.spec, data.wait, data.direct = event.spec, event.wait, event.direct
    data.created_at = step.now
    data.reason = "not started"
    for module in event.spec.modules:
        data.keep(module.package)
    for tag, value in event.spec.globals.items():
        data.set_global(tag, value)


def _resumed(step: Step) -> None:
    data = step.data
    _leave_out_the_pause(step)
    step.enter(SwarmState.ACTIVE, sentences.waiting(data.asks.values()))
    step.actions += (events.AskPlacement(number) for number in data.asks)
    asked = set(data.asked_again())
    for alias, run in data.runs[data.iteration].items():
        phases.begin_if_ready(step, alias)
        for index, instance in enumerate(run.instances):
            if run.phase is Phase.RUNNING and instance.idle and (alias, index) not in asked:
                attempts.retry(step, run, index)
        attempts.start_queued(step, run)
    phases.end_iteration(step)


def _leave_out_the_pause(step: Step) -> None:
    """Moves all timers by the time for which the swarm has been paused."""
    paused_for = step.now - step.data.paused_at
    step.data.move_timers(lambda timer: timer.due + paused_for)
    step.data.paused_at = step.now


# What placement answers.


def _placed(step: Step, event: events.Placed) -> None:
    data = step.data
    ask = data.asks.pop(event.number)
    data.reason = sentences.waiting(data.asks.values())
    run = data.run_of(ask.alias)
    if not ask.replace:
        run.place(event.placements, event.waiting, step.now)
        run.shares = phases.shares_of(data, run)
        if run.spec.fixed:
            nodes = tuple(placement.node_id for placement in event.placements)
            data.kept.setdefault(ask.alias, nodes)
        if isinstance(run.spec.deadline, float):
            data.set_timer(step.now + run.spec.deadline, "deadline", data.iteration, ask.alias)
    step.tell("placed", sentences.placed(ask, event.placements, event.waiting), ask.alias)
    if run.sequential and not ask.replace:
        attempts.start_queued(step, run)
        return
    for placement in event.placements:
        phases.assign(step, run, placement)


def _unplaceable(step: Step, event: events.Unplaceable) -> bool:
    data = step.data
    ask = data.asks[event.number]
    if ask.since is not None and ask.problem == event.problem:
        return False
    if ask.since is None:
        ask.since = step.now
        if not data.wait:
            data.set_timer(step.now + PATIENCE, "patience", event.number)
    if ask.problem != event.problem:
        ask.problem = event.problem
        data.reason = sentences.waiting(data.asks.values())
        step.tell("waiting", event.problem, ask.alias)
    return True


# What the cluster tells, and time.


def _node_lost(step: Step, event: events.NodeLost) -> bool:
    data, node_id = step.data, event.node_id
    there = [
        (run, index)
        for run in data.runs[data.iteration].values()
        for index, instance in enumerate(run.instances)
        if instance.last.node_id == node_id
    ]
    if node_id in data.gone and not there:
        return False
    data.gone.add(node_id)
    hit: list[tuple[TaskRun, int]] = []  # instances that run there, or have to run there again
    for run, index in there:
        instance = run.instances[index]
        instance.losses += 1
        to_run = instance.last.instance in data.live or (run.bound and instance.idle)
        if run.phase is Phase.RUNNING and to_run:
            hit.append((run, index))
    if hit:
        lost = [run.instances[index].last for run, index in hit]
        step.tell("lost", sentences.lost(lost, event.reason))
    for run, index in hit:
        # By one before it, the swarm may have failed, or the task may be done.
        if not data.state.final and run.phase is Phase.RUNNING:
            attempts.lose(step, run, index, event.reason)
    return True


def _ticked(step: Step) -> None:
    data = step.data
    while data.is_due(step.now):
        timer = heapq.heappop(data.timers)
        if not data.is_valid(timer):
            continue
        match timer.kind, timer.key:
            case "patience", (int(number),):
                _out_of_patience(step, data.asks.pop(number))
            case "deadline", (int(), str(alias), *_):
                data.run_of(alias).overdue = True
                phases.settle(step, data.run_of(alias))
            case "again", (int(), str(alias), int(index)):
                attempts.retry(step, data.run_of(alias), index)
            case "backstop", (str(alias), int(index), *_):
                attempt = data.run_of(alias).instances[index].last
                silence = f"{attempt.node_alias} did not report the end of it"
                attempt.error = TaskError("Timeout", silence)
                attempts.ended(step, attempt, AttemptState.TIMEOUT)


def _out_of_patience(step: Step, ask: Ask) -> None:
    why = sentences.out_of_patience(ask, PATIENCE)
    if not ask.replace:
        step.fail(f"{why}.")
    for index in ask.replace:
        attempts.give_up(step, step.data.run_of(ask.alias), index, why)


def _restarted(step: Step) -> None:
    """The new manager's clock may be minutes from the old one's."""
    if step.data.state is SwarmState.PAUSED:
        _leave_out_the_pause(step)
    else:
        step.data.move_timers(lambda timer: max(timer.due, step.now + RESTART_GRACE[timer.kind]))
        step.data.paused_at = step.now


def _rewound(step: Step, event: events.Rewound) -> bool:
    """Part of what live attempts sent may be lost, perhaps a result: all of them run again."""
    data = step.data
    is_new = event.backup != data.backup
    if is_new:
        data.backup = event.backup
        data.heard_since.clear()
        lost = (
            "the manager's database went back to an earlier state (an older copy or a backup was "
            "put back, or its log was lost), and what the task sent since is lost"
        )
        for attempt in list(data.live.values()):
            attempt.error = TaskError("Restored", lost)
            attempts.ended(step, attempt, AttemptState.INTERRUPTED)
    ahead = {id_: upto for id_, upto in event.reached.items() if upto > data.applied.get(id_, 0)}
    data.applied.update(ahead)
    heard = event.reached.keys() - data.heard_since
    data.heard_since.update(heard)
    return is_new or bool(ahead or heard)
