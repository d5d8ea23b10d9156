"""How the attempts of an instance follow each other, until it has answered or is given up.

Each instance of a task that is RUNNING has at most one live attempt. It ends by what its
node tells:

    FINISHED              the instance has answered
    FAILED, TIMEOUT       tried again up to `retries` times, then given up
    INTERRUPTED, REFUSED  not its code's fault: tried again up to INTERRUPTIONS times,
                          each after a longer pause, then given up; at once if the owner
                          of the node that it is bound to denies it
    its node is lost      given up if method is "all", else as INTERRUPTED

A retry of "all" goes to the same node, others go elsewhere if they can.
"""

from __future__ import annotations

from manta.manager.placement.place import Placement
from manta.manager.swarm import phases, sentences
from manta.manager.swarm.state import Ask, Attempt, InstanceRun, Phase, TaskRun
from manta.manager.swarm.step import Step
from manta.protocol.node import DENIED, TaskError
from manta.protocol.states import AttemptState, SwarmState

INTERRUPTIONS = 5
"""How often the platform may interrupt one instance of one iteration."""
PAUSES = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the platform's faults are tried again."""


def ended(step: Step, attempt: Attempt, state: AttemptState) -> None:
    """A live attempt has ended."""
    data, at = step.data, attempt.instance
    run, index = data.run_of(at.alias), at.index
    instance = run.instances[index]
    step.close(attempt, state)
    if state is AttemptState.FINISHED:
        run.finished += 1
        step.settle(attempt)
        step.tell_of(attempt, "finished", sentences.finished(attempt))
        start_queued(step, run)
        phases.settle(step, run)
        return
    data.disavow(attempt)
    what = sentences.failure(attempt)
    if state in (AttemptState.FAILED, AttemptState.TIMEOUT):
        instance.failures += 1
        pause, spent = 0.0, instance.failures > run.spec.retries
    else:
        instance.interruptions += 1
        # What the owner of the node denies that it is bound to will not be allowed by asking again.
        is_denied = attempt.error is not None and attempt.error.kind == DENIED and run.bound
        spent = instance.interruptions > INTERRUPTIONS or is_denied
        pause = PAUSES[min(instance.interruptions, len(PAUSES)) - 1]
    if spent:
        step.tell_of(attempt, "failed", what)
        give_up(step, run, index, sentences.tried(what, instance))
        return
    step.tell_of(attempt, "retried", sentences.retried(what, pause))
    if pause:
        data.set_timer(step.now + pause, "again", data.iteration, run.spec.alias, index)
    else:
        retry(step, run, index)


def retry(step: Step, run: TaskRun, index: int) -> None:
    """Begins a new attempt; while the swarm is paused, the resume does."""
    if step.data.state is not SwarmState.ACTIVE:
        return
    last = run.instances[index].last
    if run.bound:
        phases.assign(step, run, Placement(index, last.node_id, last.node_alias))
    else:
        phases.ask(step, Ask(run.spec.alias, (index,)))


def give_up(step: Step, run: TaskRun, index: int, why: str) -> None:
    run.instances[index].given_up = why
    run.given_up += 1
    start_queued(step, run)
    phases.settle(step, run)


def start_queued(step: Step, run: TaskRun) -> None:
    """Starts those whose turn has come: of a sequential task when those before them have
    ended, of many replicas when there is room."""
    data = step.data
    while run.has_queued and data.state is SwarmState.ACTIVE and run.phase is Phase.RUNNING:
        if len(run.instances) - run.finished - run.given_up >= run.max_open:
            return
        placement = run.queued.pop(0) if run.queued else _deal(step, run)
        run.instances.append(InstanceRun())
        phases.assign(step, run, placement)
        if placement.node_id in data.gone:
            lose(step, run, placement.index, "it was lost before its turn came")


def _deal(step: Step, run: TaskRun) -> Placement:
    """A node for the first that waits: the one that holds the fewest of this swarm's."""
    data, index = step.data, len(run.instances)
    run.waiting -= 1
    if run.sequential:
        node = run.nodes[index % len(run.nodes)]
    else:
        here = [node for node in run.nodes if node.node_id not in data.gone]
        node = min(here or run.nodes, key=lambda node: data.held.get(node.node_id, 0))
    return Placement(index, node.node_id, node.node_alias)


def lose(step: Step, run: TaskRun, index: int, reason: str) -> None:
    """The node of an instance is lost."""
    attempt = run.instances[index].last
    attempt.error = TaskError("NodeLost", f"{attempt.node_alias} was lost: {reason}")
    if not run.bound:
        ended(step, attempt, AttemptState.INTERRUPTED)
        return
    if attempt.instance in step.data.live:
        step.close(attempt, AttemptState.INTERRUPTED)
        step.data.disavow(attempt)
    give_up(step, run, index, sentences.failure(attempt))
