"""What each event does to a swarm, but for what nodes' journals tell (`journal`).

A handler is called only for an event that counts (`machine.counts`).
"""

from __future__ import annotations

import heapq

from manta.manager.swarm import attempts, completion, endings, placing, sentences
from manta.manager.swarm.events import (
    AskPlacement,
    Created,
    NodeLost,
    Paused,
    Placed,
    ResultsDeleted,
    Resumed,
    Unplaceable,
)
from manta.manager.swarm.runs import Phase, TaskRun
from manta.manager.swarm.state import Ask, SwarmData
from manta.manager.swarm.step import Step
from manta.protocol.node import TaskError
from manta.protocol.states import AttemptState, SwarmState

PATIENCE = 60.0
"""Seconds for which a swarm that was placeable waits for nodes."""
RESTART_GRACE = {"deadline": 20.0, "again": 0.0, "patience": 60.0, "backstop": 90.0}
"""Seconds after a manager's restart in which no such timer ends: nodes must come back first,
and one that does not is lost by its lease before an attempt on it counts as silent."""


# What users do.


def created(step: Step, event: Created) -> None:
    data = step.data
    data.spec, data.wait = event.spec, event.wait
    data.created_at = step.now
    data.reason = "not started"
    for module in event.spec.modules:
        data.keep(module.package)
    for tag, value in event.spec.globals.items():
        data.set_global(tag, value)


def started(step: Step) -> None:
    step.data.started_at = step.now
    endings.enter(step, SwarmState.ACTIVE, "")
    placing.begin_iteration(step, {})


def paused(step: Step, event: Paused) -> None:
    step.data.paused_at = step.now
    endings.enter(step, SwarmState.PAUSED, f"paused by {event.by}")


def resumed(step: Step, event: Resumed) -> None:
    data = step.data
    _leave_out_the_pause(step)
    endings.enter(step, SwarmState.ACTIVE, sentences.waiting(data.asks.values()))
    step.actions += outstanding(data)
    for alias, run in data.runs[data.iteration].items():
        placing.begin_if_ready(step, alias)
        asked = {index for ask in data.asks.values() for index in ask.replace if ask.alias == alias}
        for index, instance in enumerate(run.instances):
            if run.phase is Phase.RUNNING and instance.idle and index not in asked:
                attempts.retry(step, run, index)
        attempts.start_queued(step, run)
    completion.end_iteration(step)


def _leave_out_the_pause(step: Step) -> None:
    """Timers stood still in it, as far as it has gone."""
    step.data.move_timers(step.now - step.data.paused_at)
    step.data.paused_at = step.now


def results_deleted(step: Step, event: ResultsDeleted) -> None:
    positions = step.data.results_of(event.tag, event.iteration)
    step.release(step.data.delete_results(positions), deleted=True)
    step.tell("deleted", sentences.deleted(len(positions), event))


# What placement answers.


def outstanding(data: SwarmData) -> list[AskPlacement]:
    """Placements that are wanted now."""
    if data.state is not SwarmState.ACTIVE:
        return []
    return [AskPlacement(number) for number in data.asks]


def placed(step: Step, event: Placed) -> None:
    data = step.data
    ask = data.asks.pop(event.number)
    data.reason = sentences.waiting(data.asks.values())
    run = data.run_of(ask.alias)
    if not ask.replace:
        run.place(event.placements, event.waiting, step.now)
        run.shares = placing.shares_of(data, run)
        if run.spec.fixed:
            nodes = tuple(placement.node_id for placement in event.placements)
            data.kept.setdefault(ask.alias, nodes)
        if run.spec.deadline is not None:
            data.set_timer(step.now + run.spec.deadline, "deadline", data.iteration, ask.alias)
    step.tell("placed", sentences.placed(ask, event.placements, event.waiting), ask.alias)
    if run.sequential and not ask.replace:
        attempts.start_queued(step, run)
        return
    for placement in event.placements:
        placing.assign(step, run, placement)


def unplaceable(step: Step, event: Unplaceable) -> None:
    data = step.data
    ask = data.asks[event.number]
    if ask.since is None:
        ask.since = step.now
        if not data.wait:
            data.set_timer(step.now + PATIENCE, "patience", event.number)
    if ask.problem != event.problem:
        ask.problem = event.problem
        data.reason = sentences.waiting(data.asks.values())
        step.tell("waiting", event.problem, ask.alias)


# What the cluster tells, and time.


def node_lost(step: Step, event: NodeLost) -> None:
    data = step.data
    data.gone.add(event.node_id)
    hit = hit_by_loss(data, event.node_id)
    if not hit:
        return
    lost = [run.instances[index].last for run, index in hit]
    step.tell("lost", sentences.lost(lost, event.reason))
    for run, index in hit:
        if data.state.final or run.phase is not Phase.RUNNING:
            continue  # by one before it, the swarm failed or the task was done
        attempts.lose(step, run, index, event.reason)


def hit_by_loss(data: SwarmData, node_id: str) -> list[tuple[TaskRun, int]]:
    """Instances that run on the node, or are to run there again."""
    return [
        (run, index)
        for run in data.runs[data.iteration].values()
        if run.phase is Phase.RUNNING
        for index, instance in enumerate(run.instances)
        if instance.last.node_id == node_id
        and (instance.last.instance in data.live or (run.bound and instance.idle))
    ]


def ticked(step: Step) -> None:
    data = step.data
    while data.is_due(step.now):
        timer = heapq.heappop(data.timers)
        if not data.is_valid(timer):
            continue
        match timer.kind, timer.key:
            case "patience", (int(number),):
                _out_of_patience(step, data.asks.pop(number))
            case "deadline", (int(), str(alias)):
                data.run_of(alias).overdue = True
                completion.settle(step, data.run_of(alias))
            case "again", (int(), str(alias), int(index)):
                attempts.retry(step, data.run_of(alias), index)
            case "backstop", (str(alias), int(index), *_):
                attempt = data.run_of(alias).instances[index].last
                attempt.error = sentences.silent(attempt)
                attempts.ended(step, attempt, AttemptState.TIMEOUT)


def _out_of_patience(step: Step, ask: Ask) -> None:
    why = sentences.out_of_patience(ask, PATIENCE)
    if not ask.replace:
        endings.fail(step, f"{why}.")
    for index in ask.replace:
        attempts.give_up(step, step.data.run_of(ask.alias), index, why)


def restarted(step: Step) -> None:
    """The new manager's clock may be minutes from the old one's."""
    if step.data.state is SwarmState.PAUSED:
        _leave_out_the_pause(step)
    else:
        step.data.delay_timers(step.now, RESTART_GRACE)


def rewound(step: Step, backup: str) -> None:
    """Part of what live attempts told may be lost, a result perhaps: none is believed."""
    data = step.data
    data.backup = backup
    data.heard_since.clear()
    for attempt in list(data.live.values()):
        attempt.error = TaskError("Restored", sentences.RESTORED)
        attempts.ended(step, attempt, AttemptState.INTERRUPTED)
