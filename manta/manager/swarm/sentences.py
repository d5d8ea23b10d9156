"""The sentences that users read of a swarm: in `manta run`, reasons and errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from manta.manager.placement.place import Placement
from manta.manager.swarm import quorum
from manta.manager.swarm.events import ResultsDeleted
from manta.manager.swarm.state import Ask, Attempt, InstanceRun, SwarmData, TaskRun
from manta.protocol.names import listed
from manta.protocol.node import Instance, Progressed, TaskError
from manta.protocol.states import AttemptState, SwarmState


def task_id(instance: Instance) -> str:
    at = instance
    return f"{at.swarm_id}.{at.alias}.{at.index}.{at.iteration}.{at.attempt}"


def label(attempt: Attempt) -> str:
    """`worker.1`, or `aggregator` when there is only one."""
    instance = attempt.instance
    if attempt.assignment.size == 1:
        return instance.alias
    return f"{instance.alias}.{instance.index}"


def state(data: SwarmData) -> str:
    name = data.spec.name if data.spec else data.swarm_id
    return f"Swarm {name!r} is {data.state}" + (f": {data.reason}" if data.reason else ".")


def waiting(asks: Iterable[Ask]) -> str:
    """Why an active swarm cannot continue, or nothing."""
    return next((ask.problem for ask in asks if ask.problem), "")


def out_of_patience(ask: Ask, patience: float) -> str:
    """Without a full stop, like all reasons to give an instance up."""
    return f"{ask.problem.rstrip('.')} (waited {patience:g} s for it)"


def placed(ask: Ask, placements: Sequence[Placement], waiting: int) -> str:
    nodes = list(dict.fromkeys(placement.node_alias for placement in placements))
    if ask.replace:
        return f"{ask.alias}.{ask.replace[0]} is placed again, on {nodes[0]}."
    size = len(placements) + waiting
    count = f"{size} instances " if size > len(nodes) else ""
    return f"{ask.alias} is placed: {count}on {listed(nodes)}."


def started(attempt: Attempt) -> str:
    number = attempt.instance.attempt + 1
    again = f" (attempt {number})" if number > 1 else ""
    return f"{label(attempt)} started on {attempt.node_alias}{again}."


def held(attempt: Attempt) -> str:
    return f"{label(attempt)} waits for the owner of {attempt.node_alias}."


def no_neighbor(attempt: Attempt, node_id: str) -> str:
    return (
        f"A message of {label(attempt)} on {attempt.node_alias} to {node_id} was dropped: its "
        "network does not join them."
    )


def strange(node_id: str, instance: Instance | None = None) -> str:
    what = f"{instance}, which" if instance else "instances that"
    return f"Node {node_id} reported on {what} it was never given; ignored."


def progress(attempt: Attempt, entry: Progressed) -> str:
    text = f": {entry.message}" if entry.message else "."
    return f"{label(attempt)} on {attempt.node_alias} is at {entry.fraction:.0%}{text}"


def finished(attempt: Attempt) -> str:
    took = (attempt.ended_at or 0.0) - (attempt.started_at or attempt.placed_at)
    return f"{label(attempt)} finished on {attempt.node_alias} in {seconds(took)}."


def failure(attempt: Attempt) -> str:
    """What went wrong with an attempt; without a full stop."""
    node = f"{attempt.node_alias} in iteration {attempt.instance.iteration}"
    limit, error = attempt.assignment.timeout, attempt.error
    if attempt.state is AttemptState.TIMEOUT and limit is not None:
        return f"{label(attempt)} ran longer than its timeout of {limit:g} s on {node}"
    how = {
        AttemptState.REFUSED: "was refused by",
        AttemptState.INTERRUPTED: "was interrupted on",
    }.get(attempt.state, "failed on")
    line = error.sentence.strip().partition("\n")[0].rstrip(".") if error else ""
    why = f": {line or error.kind}" if error else ""
    return f"{label(attempt)} {how} {node}{why}"


def tried(what: str, instance: InstanceRun) -> str:
    count = len(instance.attempts)
    return f"{what} (attempt {count} of {count})" if count > 1 else what


def retried(what: str, pause: float) -> str:
    when = f"in {pause:g} s" if pause else "now"
    return f"{what}; it is tried again {when}."


def lost(attempts: Sequence[Attempt], reason: str) -> str:
    ran = listed([label(attempt) for attempt in attempts])
    return f"{attempts[0].node_alias} was lost with {ran}: {reason}."


def enough(run: TaskRun, size: int) -> str:
    """Why those that have not answered are not waited for."""
    when = f" at its deadline of {_deadline(run)}" if run.overdue else ""
    return f"{run.finished} of {size} had answered{when}, enough for its {_quorum(run)}"


def _quorum(run: TaskRun) -> str:
    asked = run.spec.quorum
    return f"quorum of {asked:g}" if isinstance(asked, float) else f'quorum "{asked}"'


def _deadline(run: TaskRun) -> str:
    shown = f"{quorum.deadline_of(run) or 0.0:.3g} s"
    return f"{shown}, by what the others took" if run.spec.deadline == "auto" else shown


def swarm_over(state: SwarmState, reason: str) -> str:
    if state is SwarmState.STOPPED:
        return f"the swarm was {reason}"
    return f"the swarm failed: {reason.rstrip('.')}"


def cancelled(attempt: Attempt, why: str) -> TaskError:
    return TaskError("Cancelled", f"{label(attempt)} on {attempt.node_alias} was ended: {why}.")


def cancelled_too(here: TaskError, there: TaskError | None) -> TaskError:
    """The error of an attempt that we ended, with its last lines; or its own, if it had failed by
    itself."""
    if there is None:
        return here
    if there.kind != here.kind:
        return there
    return TaskError(here.kind, here.sentence, there.traceback, there.last_lines, there.bundle)


def left_out(run: TaskRun) -> list[str]:
    return [instance.given_up for instance in run.instances if instance.given_up]


def done(run: TaskRun, size: int, now: float) -> str:
    """`size` includes those whose turn did not come."""
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
        remedy = f"; {_WITHOUT_A_NODE}" if any(map(quorum.was_lost, run.instances)) else ""
        return f"{absent[0]}{remedy}."
    if run.spec.quorum == "alive":
        if (broken := quorum.failed(run)) is not None:
            return (
                f'{broken.given_up}; the quorum "alive" leaves out those alone whose node is lost.'
            )
        return f"{run.spec.alias} has nobody left: {listed(absent, '; ')}."
    can = run.size - run.given_up
    return (
        f"{run.spec.alias} needs {need} of {run.size} (quorum {run.spec.quorum:g}) and "
        f"only {can} can still answer; {listed(absent, '; ')}."
    )


_WITHOUT_A_NODE = (
    'an `all` task needs each of its nodes unless it has a quorum (quorum="alive" for those that '
    "are left, or quorum=0.8, with deadline= to wait for the others until then); other methods are "
    "placed again elsewhere, and retries= is for what fails in its code"
)


def overdue(run: TaskRun, need: int) -> str:
    late = [
        f"{label(instance.last)} on {instance.last.node_alias}"
        for instance in run.instances
        if instance.last.state is not AttemptState.FINISHED
    ]
    return (
        f"{run.spec.alias} had {run.finished} of {run.size} answers at its deadline of "
        f"{_deadline(run)} and needs {need}; missing: {listed(late)}."
    )


def ran(iterations: int) -> str:
    return "ran 1 iteration" if iterations == 1 else f"ran {iterations} iterations"


def wrong_alias(attempt: Attempt, alias: str, known: Iterable[str]) -> str:
    instance = attempt.instance
    return (
        f"{instance.alias} on {attempt.node_alias} called schedule_next_iter for {alias!r} in "
        f"iteration {instance.iteration}, which is not a task of this swarm; name one of "
        f"{listed(list(known))}."
    )


def nobody_wrote(alias: str, tag: str, iteration: int) -> str:
    return (
        f"Task {alias!r} runs where the result {tag!r} was written, and no node has written it by "
        f"iteration {iteration}; let a task before it call results.add({tag!r}, ...)."
    )


def deleted(count: int, event: ResultsDeleted) -> str:
    what = "1 result" if count == 1 else f"{count} results"
    tag = f" of tag {event.tag!r}" if event.tag is not None else ""
    at = f" of iteration {event.iteration}" if event.iteration is not None else ""
    were = "was" if count == 1 else "were"
    return f"{what}{tag}{at} {were} deleted by {event.by}."


def seconds(duration: float) -> str:
    if duration < 10:
        return f"{max(0.0, duration):.2g} s"
    return f"{duration:.0f} s"
