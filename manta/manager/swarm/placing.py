"""How an iteration and its tasks begin: from a task that is ready to attempts on nodes."""

from __future__ import annotations

from hashlib import blake2b

from manta.manager.placement.demand import Demand, datasets_of, resources_of, tag_of
from manta.manager.placement.place import Placement
from manta.manager.swarm import endings, sentences
from manta.manager.swarm.events import AskPlacement, Assign
from manta.manager.swarm.runs import Attempt, Phase, TaskRun
from manta.manager.swarm.shares import shares
from manta.manager.swarm.state import Ask, SwarmData
from manta.manager.swarm.step import Step
from manta.protocol.node import Assignment, Instance
from manta.protocol.states import SwarmState


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
        endings.fail(step, sentences.nobody_wrote(alias, tag, data.iteration))
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
    previous: tuple[str, ...] = ()
    if data.iteration > 0 and (before := data.runs[data.iteration - 1].get(alias)):
        previous = tuple(run.last.node_id for run in before.instances)
    avoid: list[str] = []
    if replace:
        of = data.run_of(alias)
        for index in replace:
            avoid += (attempt.node_id for attempt in of.instances[index].attempts)
        if not of.nodes:  # of many replicas each node has some
            avoid += (instance.last.node_id for instance in of.instances)
    return Demand(
        task,
        graph.modules[task.module],
        iteration=max(0, data.iteration),
        seed=graph.spec.seed,
        within=data.within.get(alias, ()),
        kept=data.kept.get(alias, ()),
        previous=previous,
        producers=_producers(data, tag_of(task)),
        replace=replace,
        avoid=tuple(dict.fromkeys(avoid)),
        before=graph.before_random[alias],
        holding=data.held,
    )


def _producers(data: SwarmData, tag: str | None) -> tuple[str, ...]:
    """Nodes that wrote it in this iteration, or else in the one before."""
    if tag is None:
        return ()
    items = data.written(data.iteration, tag) or data.written(data.iteration - 1, tag)
    return tuple(dict.fromkeys(item.node_id for item in items))


def shares_of(data: SwarmData, run: TaskRun) -> tuple[float, ...]:
    """Which part of the work each instance takes, by how fast it was an iteration ago."""
    before = data.runs[data.iteration - 1].get(run.spec.alias) if data.iteration else None
    ended = [instance.last.timings for instance in before.instances] if before else []
    took = [timings.computing if timings else None for timings in ended]
    return shares(run.size, before.shares if before else (), took)


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
        resources=resources_of(task, module),
        timeout=task.timeout,
        priority=task.priority,
        seed=_seed(spec.seed, instance, placement.node_id),
        task_id=sentences.task_id(instance),
        gpu=task.gpu,
    )
    attempt = Attempt(assignment, placement.node_alias, step.now)
    attempts.append(attempt)
    data.add_live(attempt)
    step.act(Assign(placement.node_id, assignment))


def _seed(seed: int, instance: Instance, node_id: str) -> int:
    """The same for every attempt, another for every instance, node and iteration."""
    text = f"{seed}/{instance.alias}/{instance.index}/{instance.iteration}/{node_id}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) >> 1
