"""Applies the entries of nodes' journals to a swarm, each once.

Only live attempts have an effect. The results of others are kept, marked with
`counts=False`, and change nothing else. Entries are numbered by their node: those already
applied and those beyond a gap are ignored, so entries are applied once and in order,
whatever happened on the way.

A node speaks for the attempts that it was given. What it says of others, or what of ended ones
would have no effect, is left out before the event is stored (`Reader`); its numbers count.
"""

from __future__ import annotations

from manta.manager.swarm import attempts, phases, sentences
from manta.manager.swarm.events import (
    Acknowledge,
    Began,
    EntriesReceived,
    Needed,
    Passed,
    Publish,
    Woken,
)
from manta.manager.swarm.networks import may_hear
from manta.manager.swarm.references import packages_of
from manta.manager.swarm.state import Attempt, SwarmData
from manta.manager.swarm.step import Step
from manta.protocol.base import Instance
from manta.protocol.exchange import Said, Sent
from manta.protocol.node import (
    DatasetUsed,
    GlobalWritten,
    JournalEntry,
    MetricsLogged,
    NextIteration,
    Progressed,
    ResultWritten,
    StopRequested,
    TaskEnded,
    TaskHeld,
    TaskStarted,
)
from manta.protocol.spec import datasets_of
from manta.protocol.states import AttemptState
from manta.protocol.user import MetricsItem, ResultItem
from manta.protocol.values import BlobRef

BACKSTOP = 60.0
"""Seconds beyond twice its timeout after which a silent attempt is ended: its node enforces
the timeout, and may take long to deliver what the task wrote."""
LONGEST_HELD = 10 * 365 * 86400.0
"""Seconds for which an attempt may have waited for the owner of its node."""
LONGEST_DIGEST, LONGEST_VERSION = 64, 1000
"""Characters of what is kept of a dataset."""
_REPORTED = ("FINISHED", "FAILED", "TIMEOUT", "REFUSED")
_GIVEN_UP = (AttemptState.INTERRUPTED, AttemptState.TIMEOUT)
PROGRESS_STEP, PROGRESS_PAUSE = 0.05, 1.0
"""Progress is published when it has grown by this fraction, or after this many seconds."""


def apply(step: Step, event: EntriesReceived) -> bool:
    """Whether the event changed anything: a repeat, or what lies beyond a gap, does not."""
    data, node_id = step.data, event.node_id
    applied = data.applied.get(node_id, 0)
    # What the node wrote between the backup and now is lost: any number may come next.
    rewound = bool(data.backup) and node_id not in data.heard_since
    if rewound:
        data.heard_since.add(node_id)
        applied = max(applied, event.first - 1)
    was_gone = node_id in data.gone
    data.gone.discard(node_id)
    before, number = applied, event.first - 1
    for entry in event.entries if event.first <= applied + 1 else ():
        number += entry.count if isinstance(entry, Passed) else 1
        if number <= applied:
            continue
        if not isinstance(entry, Passed):
            _apply(step, node_id, entry)
        applied = number
    if event.strange and applied > before:
        step.tell("ignored", sentences.strange(node_id))
    if applied:
        data.applied[node_id] = applied
    step.act(Acknowledge(node_id, applied))
    return rewound or was_gone or applied > before


class Reader:
    """Tells which entries of a batch say something, in their order."""

    def __init__(self, data: SwarmData, node_id: str) -> None:
        self._data = data
        self._node_id = node_id
        self._ended: set[Instance] = set()
        self.strange = False
        """Whether one of them was about an instance that the node was never given."""

    def says(self, entry: JournalEntry) -> bool:
        """Whether the entry has an effect, or is recorded of an attempt that is over."""
        at = entry.instance
        attempt = self._data.attempt_of(at, self._node_id)
        if attempt is None:
            self.strange = True
            return False
        live = at in self._data.live and at not in self._ended
        if isinstance(entry, TaskEnded):
            self._ended.add(at)
            return not _stands(attempt, entry)
        return live or isinstance(entry, TaskStarted | ResultWritten | MetricsLogged)


def _apply(step: Step, node_id: str, entry: JournalEntry) -> None:
    data = step.data
    attempt = data.attempt_of(entry.instance, node_id)
    if attempt is None:
        step.tell("ignored", sentences.strange(node_id, entry.instance))
        return
    at, live = entry.instance, entry.instance in data.live
    match entry:
        case TaskHeld() if live and attempt.started_at is None:
            if attempt.held_at is None:
                step.tell_of(attempt, "held", sentences.held(attempt))
            # As in `_between`; owners may have been asked before it was placed.
            attempt.held_at = min(max(step.now - LONGEST_HELD, entry.at), step.now)
            data.asks_owners = True
        case TaskHeld():
            pass
        case TaskStarted():
            attempt.started_at, attempt.held_at = _between(step, attempt, entry.at), None
            attempt.datasets = _declared(step, attempt, entry.datasets)
            if live:
                attempt.state = AttemptState.RUNNING
                step.act(Began(node_id, at))
                if attempt.assignment.timeout is not None:
                    due = step.now + 2 * attempt.assignment.timeout + BACKSTOP
                    data.set_timer(due, "backstop", at.alias, at.index, at.iteration, at.attempt)
                step.tell_of(attempt, "started", sentences.started(attempt))
        case ResultWritten():
            _result(step, attempt, entry, live)
        case MetricsLogged():
            item = MetricsItem(at, node_id, attempt.node_alias, entry.metrics, entry.step, entry.at)
            data.metrics.append(item)
            step.act(Publish("metrics"))
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
                step.fail(sentences.wrong_alias(attempt, entry.alias, step.graph.tasks))
            else:
                attempt.nexts.append(entry)
        case StopRequested():
            attempt.stops = True
        case _:
            _exchanged(step, attempt, entry)


def _declared(
    step: Step, attempt: Attempt, told: tuple[DatasetUsed, ...]
) -> tuple[DatasetUsed, ...]:
    """Of what a node says that it gave the attempt, what that has asked for."""
    task = step.graph.tasks[attempt.instance.alias]
    names = datasets_of(task, step.graph.modules[task.module])
    found = {one.name: one for one in told if one.name in names}
    return tuple(
        DatasetUsed(one.name, one.digest[:LONGEST_DIGEST], one.version[:LONGEST_VERSION])
        for one in found.values()
    )


def _between(step: Step, attempt: Attempt, at: float) -> float:
    """The time `at` on a node's clock, which may be off by minutes, limited to what is possible;
    NaN is the earliest."""
    return min(max(attempt.started_at or attempt.placed_at, at), step.now)


def _task_ended(step: Step, attempt: Attempt, entry: TaskEnded, live: bool) -> None:
    if _stands(attempt, entry):
        return
    attempt.output, attempt.timings = entry.output, entry.timings
    attempt.reads = tuple(one for one in entry.reads if one.tag in step.data.globals)
    step.data.keep(entry.output)
    step.data.keep(packages_of(entry.error))
    # A state that a node should not report is the platform's fault.
    told = entry.state in _REPORTED
    state = AttemptState(entry.state) if told else AttemptState.INTERRUPTED
    if attempt.state is AttemptState.CANCELLED and attempt.error is not None:
        attempt.error = sentences.cancelled_too(attempt.error, entry.error)
    else:
        attempt.error = entry.error or attempt.error
    if live:
        attempt.ended_at = _between(step, attempt, entry.at)
        attempts.ended(step, attempt, state)
    elif attempt.state in _GIVEN_UP and state is not AttemptState.INTERRUPTED:
        attempt.state = AttemptState.SUPERSEDED


def _stands(attempt: Attempt, entry: TaskEnded) -> bool:
    """Whether what was told of the end before stands: the node has lost it, and tells another."""
    return attempt.timings is not None and entry.state == AttemptState.INTERRUPTED


def _result(step: Step, attempt: Attempt, entry: ResultWritten, live: bool) -> None:
    at, node = entry.instance, (attempt.node_id, attempt.node_alias)
    item = ResultItem(
        at.iteration,
        entry.tag,
        *node,
        at.alias,
        at.index,
        at.attempt,
        live,
        entry.value,
        entry.held and isinstance(entry.value, BlobRef),
    )
    if item.held and (digest := step.data.staying.freed_of(item)):
        step.act(Needed(item.node_id, digest))
    attempt.written.append(step.data.add_result(item))
    step.act(Publish("results"))
    run = step.data.runs[at.iteration][at.alias]
    if live and not run.has_results:
        run.has_results = True
        for alias in step.graph.layout(at.iteration).after[at.alias]:
            phases.begin_if_ready(step, alias)


def _exchanged(step: Step, attempt: Attempt, entry: Said) -> None:
    at = entry.instance
    if (
        isinstance(entry, Sent)
        and step.graph.tasks[at.alias].network is not None
        and entry.to not in may_hear(step.data, at)
    ):
        step.tell("ignored", sentences.no_neighbor(attempt, entry.to))
        return
    for topic in step.data.exchange.apply(attempt.node_id, entry):
        step.act(Woken(topic))


def _progress(step: Step, attempt: Attempt, entry: Progressed) -> None:
    attempt.progress = entry.fraction
    step.data.progressed += 1
    fraction, at = attempt.published
    if abs(entry.fraction - fraction) >= PROGRESS_STEP or step.now - at >= PROGRESS_PAUSE:
        attempt.published = (entry.fraction, step.now)
        sentence = sentences.progress(attempt, entry)
        step.tell_of(attempt, "progress", sentence, entry.fraction)
