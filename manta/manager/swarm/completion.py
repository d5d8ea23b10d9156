"""When a task is done, an iteration over, and the swarm complete.

A task is DONE when all its instances have answered; with a quorum, when enough have and
either the others are given up, or there is no deadline, or it is over. When too few can
still answer, the swarm fails. An iteration ends when all tasks are DONE; another follows as
`end_iteration` says.
"""

from __future__ import annotations

import math

from manta.manager.swarm import endings, placing, sentences
from manta.manager.swarm.runs import Phase, TaskRun
from manta.manager.swarm.step import Step
from manta.protocol.node import NextIteration
from manta.protocol.states import AttemptState, SwarmState


def settle(step: Step, run: TaskRun) -> None:
    """Ends the task if it is done, and the swarm if it can no longer be."""
    size = run.size
    unanswered = size - run.finished - run.given_up
    need = size if run.spec.quorum is None else quorum_of(run.spec.quorum, size)
    if run.finished + unanswered < need:
        endings.fail(step, sentences.too_few(run, need))
    elif run.finished >= need and (not unanswered or run.spec.deadline is None or run.overdue):
        _done(step, run)
    elif run.overdue:
        endings.fail(step, sentences.overdue(run, need))


def quorum_of(fraction: float, size: int) -> int:
    """How many of `size` a quorum is; at least one."""
    return max(1, math.ceil(fraction * size - 1e-9))


def _done(step: Step, run: TaskRun) -> None:
    data, alias = step.data, run.spec.alias
    size = run.size
    run.phase = Phase.DONE
    run.queued.clear()
    run.waiting = 0
    data.open_tasks -= 1
    for number in [number for number, ask in data.asks.items() if ask.alias == alias]:
        del data.asks[number]
    for instance in run.instances:
        if instance.last.instance in data.live:
            endings.cancel(step, instance.last, sentences.enough(run, size))
            data.disavow(instance.last)
        if instance.last.state is not AttemptState.FINISHED and not instance.given_up:
            instance.given_up = sentences.straggler(instance.last)
    if len(run.instances) > 1:
        kind = "quorum" if run.finished < size else "finished"
        step.tell(kind, sentences.done(run, size, step.now), alias)
    for after in step.graph.layout(data.iteration).after[alias]:
        placing.begin_if_ready(step, after)
    end_iteration(step)


def end_iteration(step: Step) -> None:
    """Ends the iteration if all its tasks are done; begins the next if there is one.

    A task that calls stop_swarm ends the swarm; max_iteration and the length of a
    schedule are ceilings. Below them, a call of schedule_next_iter begins another
    iteration. Without such a call another begins only if there is a ceiling to run up to
    and no task ever made one, or a schedule, which is run to its end.
    """
    data, maximum = step.data, step.graph.ceiling
    if data.state is not SwarmState.ACTIVE or data.open_tasks:
        return
    step.release([*data.exchange.iteration_over(), *data.forget_replaced()])
    step.tell("iteration", sentences.iteration_took(data.iteration, step.now - data.began_at))
    answered = [
        instance.last
        for run in data.runs[data.iteration].values()
        for instance in run.instances
        if instance.last.state is AttemptState.FINISHED
    ]
    stopper = next((attempt for attempt in answered if attempt.stops), None)
    calls = [call for attempt in answered for call in attempt.nexts]
    data.self_scheduled = data.self_scheduled or bool(calls)
    runs_on = bool(step.graph.spec.schedule) or not data.self_scheduled
    if stopper is not None:
        endings.end(step, SwarmState.COMPLETED, sentences.stopped_by(stopper))
    elif maximum is not None and data.iteration + 1 >= maximum:
        endings.end(step, SwarmState.COMPLETED, sentences.ran(data.iteration + 1))
    elif calls or (maximum is not None and runs_on):
        placing.begin_iteration(step, _named(step, calls))
    else:
        endings.end(step, SwarmState.COMPLETED, sentences.ran(data.iteration + 1))


def _named(step: Step, calls: list[NextIteration]) -> dict[str, tuple[str, ...]]:
    """Nodes for the next iteration by alias; without an alias, of all that come first."""
    within: dict[str, tuple[str, ...]] = {}
    for call in calls:
        roots = step.graph.layout(step.data.iteration + 1).roots
        for alias in (call.alias,) if call.alias is not None else roots:
            both = (*within.get(alias, ()), *call.node_ids)
            within[alias] = tuple(dict.fromkeys(both))
    return within
