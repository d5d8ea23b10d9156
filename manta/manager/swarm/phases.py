"""The phases of a task in an iteration, and how iterations follow each other.

    WAITING  --the tasks before it are DONE, or have a first result-->  PLACING
    PLACING  --it is placed-->                                          RUNNING
    RUNNING  --enough instances have answered-->                        DONE

A first result is enough for an edge with the condition RESULT. In PLACING, what cannot be
placed is asked for again when nodes change. A task is DONE when all its instances have answered;
with a quorum, when enough have and either the others are given up, or there is no deadline, or it
is over. When too few can still answer, the swarm fails. An iteration ends when all tasks are
DONE; another follows as `end_iteration` says.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from manta.manager.placement.demand import Demand, tag_of
from manta.manager.placement.place import Placement
from manta.manager.swarm import quorum, sentences
from manta.manager.swarm.events import AskPlacement, Assign
from manta.manager.swarm.state import Ask, Attempt, Phase, SwarmData, TaskRun
from manta.manager.swarm.step import Step
from manta.protocol.node import Assignment, Instance, NextIteration
from manta.protocol.spec import datasets_of, outbound_of, resources_of
from manta.protocol.states import AttemptState, SwarmState

SHORTEST = 1e-6
"""Seconds of computing; a shorter time measures nothing."""


def begin_iteration(step: Step, within: dict[str, tuple[str, ...]]) -> None:
    """`within`: nodes that schedule_next_iter named, by alias."""
    data = step.data
    data.iteration += 1
    data.began_at = step.now
    data.within = within
    layout, tasks = step.graph.layout(data.iteration), step.graph.tasks
    data.runs.append(
        {
            alias: TaskRun(tasks[alias], before, alias in layout.sequential)
            for alias, before in layout.before.items()
        }
    )
    data.open_tasks = len(layout.before)
    step.tell("iteration", f"Iteration {data.iteration} begins.")
    for alias in layout.roots:
        begin_if_ready(step, alias)


def begin_if_ready(step: Step, alias: str) -> None:
    """Asks for nodes for a task whose turn has come."""
    data = step.data
    run = data.run_of(alias)
    if run.phase is not Phase.WAITING or data.state is not SwarmState.ACTIVE:
        return
    for edge in run.before:
        before = data.run_of(edge.alias)
        first_result = edge.condition == "RESULT" and before.has_results
        if before.phase is not Phase.DONE and not first_result:
            return
    tag = tag_of(run.spec)
    if tag is not None and not _producers(data, tag):
        step.fail(sentences.nobody_wrote(alias, tag, data.iteration))
        return
    run.phase = Phase.PLACING
    ask(step, Ask(alias))


def ask(step: Step, wanted: Ask) -> None:
    data = step.data
    data.asked += 1
    data.asks[data.asked] = wanted
    step.act(AskPlacement(data.asked))


def demand_of(data: SwarmData, alias: str, replace: tuple[int, ...] = ()) -> Demand:
    """What the task wants of nodes as things stand now; `replace`: only these instances."""
    graph = data.graph
    task = graph.tasks[alias]
    before = data.run_before(alias)
    avoid: list[str] = []
    if replace:
        run = data.run_of(alias)
        avoid += (one.node_id for index in replace for one in run.instances[index].attempts)
        if not run.nodes:  # of many replicas each node has some
            avoid += (instance.last.node_id for instance in run.instances)
    return Demand(
        task,
        graph.modules[task.module],
        iteration=max(0, data.iteration),
        seed=graph.spec.seed,
        within=data.within.get(alias, ()),
        kept=data.kept.get(alias, ()),
        previous=tuple(one.last.node_id for one in before.instances) if before else (),
        producers=_producers(data, tag_of(task)),
        replace=replace,
        avoid=tuple(dict.fromkeys(avoid)),
        before=graph.before_random[alias],
        holding=data.held,
        direct=data.direct,
    )


def _producers(data: SwarmData, tag: str | None) -> tuple[str, ...]:
    """Nodes that wrote it in this iteration, or else in the one before."""
    if tag is None:
        return ()
    for iteration in (data.iteration, data.iteration - 1):
        if items := data.counting(iteration, tag, even_deleted=True):
            return tuple(dict.fromkeys(item.node_id for item in items))
    return ()


def shares_of(data: SwarmData, run: TaskRun) -> tuple[float, ...]:
    """Which part of the work each instance takes, by how fast it was an iteration ago."""
    before = data.run_before(run.spec.alias)
    ended = [instance.last.timings for instance in before.instances] if before else []
    took = [timings.computing if timings else None for timings in ended]
    return shares(run.size, before.shares if before else (), took)


def shares(size: int, before: Sequence[float], took: Sequence[float | None]) -> tuple[float, ...]:
    """The shares by rank; they add up to 1.

    `before` are the shares of the previous iteration, `took` the seconds that each instance
    computed in it: one that did a share s in t seconds does s / t in one. Those that were not
    measured are taken to be as fast as the others on average; without a measure all are equal.
    """
    speeds = {
        rank: share / seconds
        for rank, share, seconds in zip(range(size), before, took, strict=False)
        if seconds is not None and seconds > SHORTEST
    }
    mean = sum(speeds.values()) / len(speeds) if speeds else 1.0
    filled = [speeds.get(rank, mean) for rank in range(size)]
    total = sum(filled)
    return tuple(speed / total for speed in filled)


def assign(step: Step, run: TaskRun, placement: Placement) -> None:
    """A new attempt of the instance, on that node."""
    data, spec, task = step.data, step.graph.spec, run.spec
    module = step.graph.modules[task.module]
    attempts = run.instances[placement.index].attempts
    instance = Instance(data.swarm_id, task.alias, placement.index, data.iteration, len(attempts))
    assignment = Assignment(
        instance=instance,
        module=module,
        swarm_name=spec.name,
        node_id=placement.node_id,
        size=run.size,
        class_name=task.class_name,
        datasets=datasets_of(task, module),
        outbound=outbound_of(task, module),
        resources=resources_of(task, module),
        timeout=task.timeout,
        priority=task.priority,
        seed=_seed(spec.seed, instance, placement.node_id),
        task_id=sentences.task_id(instance),
        gpu=task.gpu,
        direct=data.direct,
        collect=task.collect,
        epoch=data.backup,
    )
    attempt = Attempt(assignment, placement.node_alias, step.now)
    attempts.append(attempt)
    data.add_live(attempt)
    step.act(Assign(placement.node_id, assignment))


def _seed(seed: int, instance: Instance, node_id: str) -> int:
    """The same for every attempt, another for every instance, node and iteration."""
    text = f"{seed}/{instance.alias}/{instance.index}/{instance.iteration}/{node_id}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1


def settle(step: Step, run: TaskRun) -> None:
    """Ends the task if it is done, and the swarm if it can no longer be."""
    unanswered = run.size - run.finished - run.given_up
    if unanswered and run.spec.deadline == "auto":
        _set_deadline(step, run)
    need = quorum.need_of(run)
    hopeless = run.spec.quorum == "alive" and quorum.failed(run) is not None
    if hopeless or run.finished + unanswered < need:
        step.fail(sentences.too_few(run, need))
    elif run.finished >= need and (not unanswered or run.spec.deadline is None or run.overdue):
        _done(step, run)
    elif run.overdue:
        step.fail(sentences.overdue(run, need))


def _set_deadline(step: Step, run: TaskRun) -> None:
    """As it follows from those that have answered; the next that answers sets another."""
    deadline = quorum.deadline_of(run)
    if deadline is not None and not run.overdue:
        due = max(run.placed_at, step.data.paused_at) + deadline
        step.data.set_timer(due, "deadline", step.data.iteration, run.spec.alias, run.finished)


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
            step.cancel(instance.last, sentences.enough(run, size))
            data.disavow(instance.last)
        if instance.last.state is not AttemptState.FINISHED and not instance.given_up:
            who = f"{sentences.label(instance.last)} on {instance.last.node_alias}"
            instance.given_up = f"{who} had not answered in time"
    if len(run.instances) > 1:
        kind = "quorum" if run.finished < size else "finished"
        step.tell(kind, sentences.done(run, size, step.now), alias)
    for after in step.graph.layout(data.iteration).after[alias]:
        begin_if_ready(step, after)
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
    step.release([*data.exchange.end_iteration(), *data.forget_replaced()])
    took = sentences.seconds(step.now - data.began_at)
    step.tell("iteration", f"Iteration {data.iteration} took {took}.")
    answered = [
        instance.last
        for run in data.runs[data.iteration].values()
        for instance in run.instances
        if instance.last.state is AttemptState.FINISHED
    ]
    stopper = next((attempt for attempt in answered if attempt.stops), None)
    calls = [call for attempt in answered for call in attempt.nexts]
    data.self_scheduled = data.self_scheduled or bool(calls)
    goes_on = maximum is not None and (step.graph.spec.schedule or not data.self_scheduled)
    is_last = maximum is not None and data.iteration + 1 >= maximum
    if stopper is not None:
        why = f"{stopper.instance.alias} stopped the swarm in iteration {data.iteration}"
        step.end(SwarmState.COMPLETED, why)
    elif is_last or not (calls or goes_on):
        step.end(SwarmState.COMPLETED, sentences.ran(data.iteration + 1))
    else:
        begin_iteration(step, _named(step, calls))


def _named(step: Step, calls: list[NextIteration]) -> dict[str, tuple[str, ...]]:
    """Nodes for the next iteration by alias; without an alias, of all that come first."""
    within: dict[str, tuple[str, ...]] = {}
    for call in calls:
        roots = step.graph.layout(step.data.iteration + 1).roots
        for alias in (call.alias,) if call.alias is not None else roots:
            both = (*within.get(alias, ()), *call.node_ids)
            within[alias] = tuple(dict.fromkeys(both))
    return within
