"""What nodes tell of a swarm: the entries of their journals, each applied once.

Only the live attempt of an instance is listened to. What others still send is kept and
marked (`counts=False`), and changes nothing. Entries are numbered by their node: numbers
already applied and those beyond a gap are ignored, so entries are applied once and in
order, whatever happened on the way.
"""

from __future__ import annotations

from typing import assert_never

from manta.manager.swarm import attempts, endings, placing, sentences
from manta.manager.swarm.events import Acknowledge, EntriesReceived, Publish, Woken
from manta.manager.swarm.networks import may_hear
from manta.manager.swarm.runs import Attempt
from manta.manager.swarm.state import SwarmData
from manta.manager.swarm.step import Step
from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockReleased,
    LockWanted,
    Receiving,
    Said,
    Sent,
)
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    MetricsLogged,
    NextIteration,
    Progressed,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.states import AttemptState
from manta.protocol.user import MetricsItem, ResultItem

BACKSTOP = 60.0
"""Seconds beyond twice its timeout after which a silent attempt is given up: its node
enforces the timeout and may need long to deliver what the task wrote."""
PROGRESS_STEP, PROGRESS_PAUSE = 0.05, 1.0
"""Progress is published when it grew by so much, or so many seconds after the last."""


def is_news(data: SwarmData, event: EntriesReceived) -> bool:
    """Whether the event changes anything: a repeat, or what lies beyond a gap, does not."""
    if event.node_id in data.gone or _is_first_since_rewind(data, event.node_id):
        return True
    following = data.applied.get(event.node_id, 0) + 1
    return event.first <= following < event.first + len(event.entries)


def apply(step: Step, event: EntriesReceived) -> None:
    data, node_id = step.data, event.node_id
    applied = data.applied.get(node_id, 0)
    data.gone.discard(node_id)
    if _is_first_since_rewind(data, node_id):
        data.heard_since.add(node_id)
        applied = max(applied, event.first - 1)
    if event.first <= applied + 1:
        fresh = event.entries[applied + 1 - event.first :]
        for entry in fresh:
            _apply(step, node_id, entry)
        applied += len(fresh)
    if applied:
        data.applied[node_id] = applied
    step.act(Acknowledge(node_id, applied))


def _is_first_since_rewind(data: SwarmData, node_id: str) -> bool:
    """What the node wrote between the backup and now is lost: any number may come next."""
    return bool(data.backup) and node_id not in data.heard_since


def _apply(step: Step, node_id: str, entry: JournalEntry) -> None:
    data = step.data
    attempt = data.attempt_of(entry.instance, node_id)
    if attempt is None:
        step.tell("ignored", sentences.stranger(node_id, entry.instance))
        return
    live = entry.instance in data.live
    match entry:
        case TaskStarted():
            attempt.started_at = _between(step, attempt, entry.at)
            if live:
                attempt.state = AttemptState.RUNNING
                if attempt.assignment.timeout is not None:
                    due = step.now + 2 * attempt.assignment.timeout + BACKSTOP
                    data.set_timer(due, "backstop", *_key(attempt.instance))
                step.tell_of(attempt, "started", sentences.started(attempt))
        case ResultWritten():
            _result(step, attempt, entry, live)
        case MetricsLogged():
            metrics = MetricsItem(
                attempt.instance,
                node_id,
                attempt.node_alias,
                entry.metrics,
                entry.step,
                entry.at,
            )
            data.metrics.append(metrics)
            step.act(Publish("metrics", metrics))
        case TaskEnded():
            _task_ended(step, attempt, entry, live)
        case _ if not live:
            pass
        case GlobalWritten():
            data.set_global(entry.tag, entry.value)
        case Progressed():
            _progress(step, attempt, entry)
        case NextIteration():
            if entry.alias is not None and entry.alias not in step.graph.tasks:
                endings.fail(step, sentences.wrong_alias(attempt, entry.alias, step.graph.tasks))
            else:
                attempt.nexts.append(entry)
        case StopRequested():
            attempt.stops = True
        case (
            Broadcasted()
            | Sent()
            | Receiving()
            | ClaimsReturned()
            | Contributed()
            | LockWanted()
            | LockReleased()
            | Checkpointed()
        ):
            _said(step, attempt, entry)
        case _:
            assert_never(entry)


def _between(step: Step, attempt: Attempt, at: float) -> float:
    """A node's clock may be off by minutes: believed within what can have been."""
    return min(max(at, attempt.started_at or attempt.placed_at), step.now)


def _task_ended(step: Step, attempt: Attempt, entry: TaskEnded, live: bool) -> None:
    attempt.output, attempt.timings = entry.output, entry.timings
    step.data.keep(entry.output)
    state = _ending(entry.state)
    if attempt.state is AttemptState.CANCELLED and attempt.error is not None:
        attempt.error = sentences.cancelled_too(attempt.error, entry.error)
    else:
        attempt.error = entry.error or attempt.error
    if live:
        attempt.ended_at = _between(step, attempt, entry.at)
        attempts.ended(step, attempt, state)
    elif attempt.state in _GIVEN_UP and state is not AttemptState.INTERRUPTED:
        attempt.state = AttemptState.SUPERSEDED


def _result(step: Step, attempt: Attempt, entry: ResultWritten, live: bool) -> None:
    instance = entry.instance
    item = ResultItem(
        instance.iteration,
        entry.tag,
        attempt.node_id,
        attempt.node_alias,
        instance.alias,
        instance.index,
        instance.attempt,
        live,
        entry.value,
    )
    attempt.written.append(step.data.add_result(item))
    step.act(Publish("results", item))
    run = step.data.runs[instance.iteration][instance.alias]
    if live and not run.has_results:
        run.has_results = True
        for alias in step.graph.layout(instance.iteration).after[instance.alias]:
            placing.begin_if_ready(step, alias)


def _said(step: Step, attempt: Attempt, entry: Said) -> None:
    if isinstance(entry, Sent) and step.graph.tasks[attempt.instance.alias].network:
        at = attempt.instance
        allowed = may_hear(step.data, at.alias, at.index, at.iteration)
        if entry.to not in allowed:
            step.tell("ignored", sentences.no_neighbor(attempt, entry.to))
            return
    step.act(Woken(step.data.exchange.said(attempt.node_id, entry)))


def _progress(step: Step, attempt: Attempt, entry: Progressed) -> None:
    attempt.progress = entry.fraction
    fraction, at = attempt.published
    if abs(entry.fraction - fraction) >= PROGRESS_STEP or step.now - at >= PROGRESS_PAUSE:
        attempt.published = (entry.fraction, step.now)
        sentence = sentences.progress(attempt, entry)
        step.tell_of(attempt, "progress", sentence, entry.fraction)


_GIVEN_UP = (AttemptState.INTERRUPTED, AttemptState.TIMEOUT)


def _ending(state: str) -> AttemptState:
    """What a node calls an end; what it should not call one is the platform's fault."""
    if state in (AttemptState.FINISHED, AttemptState.FAILED, AttemptState.TIMEOUT):
        return AttemptState(state)
    if state == AttemptState.REFUSED:
        return AttemptState.REFUSED
    return AttemptState.INTERRUPTED


def _key(instance: Instance) -> tuple[int | str, ...]:
    return instance.alias, instance.index, instance.iteration, instance.attempt
