"""What nodes tell of a swarm: the entries of their journals, each applied once.

Only the live attempt of an instance is listened to. What others still send is kept and
marked (`counts=False`), and changes nothing. Entries are numbered by their node: numbers
already applied and those beyond a gap are ignored, so entries are applied once and in
order, whatever happened on the way.
"""

from __future__ import annotations

from typing import assert_never

from manta.manager.swarm import words
from manta.manager.swarm.course import Course
from manta.manager.swarm.events import Acknowledge, EntriesReceived, Publish, Woken
from manta.manager.swarm.networks import may_hear
from manta.manager.swarm.state import Attempt
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


class Entries(Course):
    def applied(self, node_id: str) -> int:
        """Number of the last journal entry applied of that node, durable or not.

        Registered.acknowledged must say only what was in an Acknowledge that was performed.
        """
        return self.data.applied.get(node_id, 0)

    def _entries(self, event: EntriesReceived) -> None:
        applied = self.applied(event.node_id)
        if event.node_id in self.data.gone:
            self._changed = True
            self.data.gone.discard(event.node_id)
        if self.data.backup and event.node_id not in self.data.heard_since:
            self._changed = True
            self.data.heard_since.add(event.node_id)
            applied = max(applied, event.first - 1)
        for number, entry in enumerate(event.entries, event.first):
            if number == applied + 1:
                applied = number
                self._changed = True
                self._entry(event.node_id, entry)
        if applied:
            self.data.applied[event.node_id] = applied
        self._actions.append(Acknowledge(event.node_id, applied))

    def _entry(self, node_id: str, entry: JournalEntry) -> None:
        attempt = self.data.attempt_of(entry.instance, node_id)
        if attempt is None:
            self._tell("ignored", words.stranger(node_id, entry.instance))
            return
        live = entry.instance in self.data.live
        match entry:
            case TaskStarted():
                attempt.started_at = self._between(attempt, entry.at)
                if live:
                    attempt.state = AttemptState.RUNNING
                    if attempt.assignment.timeout is not None:
                        due = self._now + 2 * attempt.assignment.timeout + BACKSTOP
                        self.data.set_timer(due, "backstop", *_key(attempt.instance))
                    self._tell_of(attempt, "started", words.started(attempt))
            case ResultWritten():
                self._result(attempt, entry, live)
            case MetricsLogged():
                metrics = MetricsItem(
                    attempt.instance,
                    node_id,
                    attempt.node_alias,
                    entry.metrics,
                    entry.step,
                    entry.at,
                )
                self.data.metrics.append(metrics)
                self._actions.append(Publish("metrics", metrics))
            case TaskEnded():
                self._task_ended(attempt, entry, live)
            case GlobalWritten() if live:
                self.data.set_global(entry.tag, entry.value)
            case Progressed() if live:
                self._progress(attempt, entry)
            case NextIteration() if live:
                if entry.alias is not None and entry.alias not in self.graph.tasks:
                    self._fail(words.wrong_alias(attempt, entry.alias, self.graph.tasks))
                else:
                    attempt.nexts.append(entry)
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
                if live:
                    self._said(attempt, entry)
            case StopRequested() if live:
                attempt.stops = True
            case GlobalWritten() | Progressed() | NextIteration() | StopRequested():
                pass
            case _:
                assert_never(entry)

    def _between(self, attempt: Attempt, at: float) -> float:
        """A node's clock may be off by minutes: believed within what can have been."""
        return min(max(at, attempt.started_at or attempt.placed_at), self._now)

    def _task_ended(self, attempt: Attempt, entry: TaskEnded, live: bool) -> None:
        attempt.output, attempt.timings = entry.output, entry.timings
        self.data.keep(entry.output)
        state = _ending(entry.state)
        if attempt.state is AttemptState.CANCELLED and attempt.error is not None:
            attempt.error = words.cancelled_too(attempt.error, entry.error)
        else:
            attempt.error = entry.error or attempt.error
        if live:
            attempt.ended_at = self._between(attempt, entry.at)
            self._attempt_ended(attempt, state)
        elif attempt.state in _GIVEN_UP and state is not AttemptState.INTERRUPTED:
            attempt.state = AttemptState.SUPERSEDED

    def _result(self, attempt: Attempt, entry: ResultWritten, live: bool) -> None:
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
        attempt.written.append(self.data.add_result(item))
        self._actions.append(Publish("results", item))
        run = self.data.runs[instance.iteration][instance.alias]
        if live and not run.has_results:
            run.has_results = True
            for alias in self.graph.layout(instance.iteration).after[instance.alias]:
                self._begin_if_ready(alias)

    def _said(self, attempt: Attempt, entry: Said) -> None:
        if isinstance(entry, Sent) and self.graph.tasks[attempt.instance.alias].network:
            at = attempt.instance
            allowed = may_hear(self.data, self.graph, at.alias, at.index, at.iteration)
            if entry.to not in allowed:
                self._tell("ignored", words.no_neighbor(attempt, entry.to))
                return
        self._actions.append(Woken(self.data.exchange.said(attempt.node_id, entry)))

    def _progress(self, attempt: Attempt, entry: Progressed) -> None:
        attempt.progress = entry.fraction
        fraction, at = attempt.told
        if abs(entry.fraction - fraction) >= PROGRESS_STEP or self._now - at >= PROGRESS_PAUSE:
            attempt.told = (entry.fraction, self._now)
            sentence = words.progress(attempt, entry)
            self._tell_of(attempt, "progress", sentence, entry.fraction)


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
