"""The sentences in which a swarm's life is told: for `manta run`, reasons and errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manta.manager.placement.names import listed
from manta.manager.placement.place import Placement
from manta.manager.swarm.events import ResultsDeleted
from manta.manager.swarm.runs import Attempt, InstanceRun, TaskRun
from manta.manager.swarm.state import Ask, SwarmData
from manta.protocol.node import Instance, Progressed, TaskError
from manta.protocol.states import AttemptState, SwarmState

RESTORED = "the manager was restored from a backup, and what the task told since is lost"


def task_id(instance: Instance) -> str:
    swarm, alias, index, iteration, attempt = (
        instance.swarm_id,
        instance.alias,
        instance.index,
        instance.iteration,
        instance.attempt,
    )
    return f"{swarm}.{alias}.{index}.{iteration}.{attempt}"


def label(attempt: Attempt) -> str:
    """`worker.1`, or `aggregator` when there is but one."""
    instance = attempt.instance
    if attempt.assignment.size == 1:
        return instance.alias
    return f"{instance.alias}.{instance.index}"


def state(data: SwarmData) -> str:
    name = data.spec.name if data.spec else data.swarm_id
    return f"Swarm {name!r} is {data.state}" + (f": {data.reason}" if data.reason else ".")


def waiting(asks: Iterable[Ask]) -> str:
    """The reason of a swarm that is active and cannot go on."""
    return next((ask.problem for ask in asks if ask.problem), "")


def out_of_patience(ask: Ask, patience: float) -> str:
    """Without a full stop, as all reasons to give an instance up."""
    return f"{ask.problem.rstrip('.')} (waited {patience:g} s for it)"


def placed(ask: Ask, placements: Sequence[Placement], waiting: int) -> str:
    nodes = list(dict.fromkeys(placement.node_alias for placement in placements))
    if ask.replace:
        return f"{ask.alias}.{ask.replace[0]} is placed again, on {nodes[0]}."
    size = len(placements) + waiting
    count = f"{size} instances " if size > len(nodes) else ""
    return f"{ask.alias} is placed: {count}on {listed(nodes)}."


def started(attempt: Attempt) -> str:
    tries = attempt.instance.attempt
    return f"{label(attempt)} started on {attempt.node_alias}" + (
        f" (try {tries + 1})." if tries else "."
    )


def no_neighbor(attempt: Attempt, node_id: str) -> str:
    return (
        f"A message of {label(attempt)} on {attempt.node_alias} to {node_id} was dropped: its "
        "network does not join them."
    )


def progress(attempt: Attempt, entry: Progressed) -> str:
    text = f": {entry.message}" if entry.message else "."
    return f"{label(attempt)} on {attempt.node_alias} is at {entry.fraction:.0%}{text}"


def finished(attempt: Attempt) -> str:
    took = (attempt.ended_at or 0.0) - (attempt.started_at or attempt.placed_at)
    return f"{label(attempt)} finished on {attempt.node_alias} in {seconds(took)}."


def failure(attempt: Attempt) -> str:
    """What went wrong with an attempt, without a full stop."""
    who = label(attempt)
    node = f"{attempt.node_alias} in iteration {attempt.instance.iteration}"
    why = because(attempt.error)
    match attempt.state:
        case AttemptState.TIMEOUT if attempt.assignment.timeout is not None:
            limit = attempt.assignment.timeout
            return f"{who} ran longer than its timeout of {limit:g} s on {node}"
        case AttemptState.REFUSED:
            return f"{who} was refused by {node}{why}"
        case AttemptState.INTERRUPTED:
            return f"{who} was interrupted on {node}{why}"
        case _:
            return f"{who} failed on {node}{why}"


def because(error: TaskError | None) -> str:
    if error is None:
        return ""
    line = error.sentence.strip().partition("\n")[0].rstrip(".")
    return f": {line or error.kind}"


def tried(what: str, instance: InstanceRun) -> str:
    count = len(instance.attempts)
    return f"{what} (try {count} of {count})" if count > 1 else what


def retried(what: str, pause: float) -> str:
    when = f"in {pause:g} s" if pause else "now"
    return f"{what}; it is tried again {when}."


def lost(attempts: Sequence[Attempt], reason: str) -> str:
    ran = listed([label(attempt) for attempt in attempts])
    return f"{attempts[0].node_alias} was lost with {ran}: {reason}."


def silent(attempt: Attempt) -> TaskError:
    return TaskError("Timeout", f"{attempt.node_alias} did not report the end of it")


def straggler(attempt: Attempt) -> str:
    return f"{label(attempt)} on {attempt.node_alias} had not answered in time"


def enough(run: TaskRun, size: int) -> str:
    """Why those who have not answered are not waited for."""
    when = f" at its deadline of {run.spec.deadline:g} s" if run.overdue else ""
    return (
        f"{run.finished} of {size} had answered{when}, enough for its quorum of {run.spec.quorum:g}"
    )


def swarm_over(state: SwarmState, reason: str) -> str:
    if state is SwarmState.STOPPED:
        return f"the swarm was {reason}"
    return f"the swarm failed: {reason.rstrip('.')}"


def cancelled(attempt: Attempt, why: str) -> TaskError:
    return TaskError("Cancelled", f"{label(attempt)} on {attempt.node_alias} was ended: {why}.")


def cancelled_too(here: TaskError, there: TaskError | None) -> TaskError:
    """What we ended, with its last lines, unless its code had failed by itself."""
    if there is None:
        return here
    if there.kind != here.kind:
        return there
    return TaskError(here.kind, here.sentence, there.traceback, there.last_lines)


def left_out(run: TaskRun) -> list[str]:
    return [instance.given_up for instance in run.instances if instance.given_up]


def done(run: TaskRun, size: int, now: float) -> str:
    """`size`: with those whose turn did not come."""
    took = seconds(now - run.placed_at)
    absent = left_out(run)
    if size > run.size:
        absent.insert(0, f"{size - run.size} whose turn had not come")
    if not absent:
        return f"{run.spec.alias} is done: all {size} answered in {took}."
    return (
        f"{run.spec.alias} is done: {run.finished} of {size} answered in {took}; "
        f"left out: {listed(absent, '; ')}."
    )


def too_few(run: TaskRun, need: int) -> str:
    absent = left_out(run)
    if run.spec.quorum is None:
        return f"{absent[0]}."
    can = run.size - run.given_up
    return (
        f"{run.spec.alias} needs {need} of {run.size} (quorum {run.spec.quorum:g}) and "
        f"only {can} can still answer; {listed(absent, '; ')}."
    )


def overdue(run: TaskRun, need: int) -> str:
    late = [
        f"{label(instance.last)} on {instance.last.node_alias}"
        for instance in run.instances
        if instance.last.state is not AttemptState.FINISHED
    ]
    return (
        f"{run.spec.alias} had {run.finished} of {run.size} answers at its deadline of "
        f"{run.spec.deadline:g} s and needs {need}; missing: {listed(late)}."
    )


def iteration_took(iteration: int, took: float) -> str:
    return f"Iteration {iteration} took {seconds(took)}."


def stopped_by(attempt: Attempt) -> str:
    instance = attempt.instance
    return f"{instance.alias} stopped the swarm in iteration {instance.iteration}"


def ran(iterations: int) -> str:
    return "ran 1 iteration" if iterations == 1 else f"ran {iterations} iterations"


def wrong_alias(attempt: Attempt, alias: str, known: Iterable[str]) -> str:
    instance = attempt.instance
    return (
        f"{instance.alias} on {attempt.node_alias} called schedule_next_iter for {alias!r} in "
        f"iteration {instance.iteration}, which is no task of this swarm; name one of "
        f"{listed(list(known))}."
    )


def nobody_wrote(alias: str, tag: str, iteration: int) -> str:
    return (
        f"Task {alias!r} runs where the result {tag!r} was written, and by iteration {iteration} "
        f"no node has written it; let a task before it call results.add({tag!r}, ...)."
    )


def deleted(count: int, event: ResultsDeleted) -> str:
    what = "1 result" if count == 1 else f"{count} results"
    tag = f" of tag {event.tag!r}" if event.tag is not None else ""
    at = f" of iteration {event.iteration}" if event.iteration is not None else ""
    were = "was" if count == 1 else "were"
    return f"{what}{tag}{at} {were} deleted by {event.by}."


def stranger(node_id: str, instance: Instance) -> str:
    return f"Node {node_id} reported on {instance}, which it was never given; ignored."


def seconds(duration: float) -> str:
    if duration < 10:
        return f"{max(0.0, duration):.2g} s"
    return f"{duration:.0f} s"
