"""What users and nodes read of a swarm."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, tee

from msgspec.structs import replace

from manta.actors import Refused
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import Outcome, Placement, place
from manta.manager.placement.plan import gathered
from manta.manager.swarm import sentences
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.phases import demand_of
from manta.manager.swarm.state import Attempt, Phase, TaskRun
from manta.protocol.codes import Code
from manta.protocol.names import listed, meant
from manta.protocol.node import ResultEntries, ResultEntry
from manta.protocol.pages import PAGE_BYTES, fitting
from manta.protocol.spec import SwarmSpec
from manta.protocol.task_ids import endings, label
from manta.protocol.user import (
    EventItem,
    FeedName,
    FeedPage,
    MetricsItem,
    Plan,
    ReadFeed,
    RecallResult,
    ResultItem,
    SwarmInfo,
    TaskInfo,
    Tasks,
)
from manta.protocol.values import Inline

ITEM_BYTES = 300
SHOWN = 10
"""Tasks that a sentence names at most."""
BUNDLE_BYTES = 600  # without its stacks
Item = ResultItem | MetricsItem | EventItem


def check_filters(machine: SwarmMachine, read: ReadFeed, nodes: Mapping[str, str]) -> None:
    """Raises Refused for a task that the swarm does not have, or a node (id -> alias) that is
    not in its cluster: such a read would never return anything."""
    spec = machine.data.graph.spec
    tasks = [task.alias for task in spec.tasks]
    if read.task is not None and read.task not in tasks:
        raise Refused(
            Code.UNKNOWN_TASK,
            f"The swarm {spec.name!r} has no task {read.task!r}: "
            f"there {'is' if len(tasks) == 1 else 'are'} {listed(tasks)}."
            + meant(read.task, tasks),
        )
    if read.node is not None and read.node not in {*nodes, *nodes.values()}:
        there = listed(sorted(nodes.values())) or "none"
        raise Refused(
            Code.UNKNOWN_NODE,
            f"There is no node {read.node!r} in this swarm's cluster: there are {there}."
            + meant(read.node, nodes.values()),
        )


def deletable(machine: SwarmMachine, tag: str | None, iteration: int | None) -> int:
    """How many results would be deleted. Raises Refused if the swarm has none of that tag."""
    data = machine.data
    if tag is not None and not data.results_of(tag, None):
        tags = data.result_tags()
        there = f"it has {listed(tags)}" if tags else "it has no results at all"
        raise Refused(
            Code.UNKNOWN_TAG,
            f"Swarm {data.graph.spec.name!r} ({data.swarm_id}) has no results of tag {tag!r}: "
            f"{there}." + meant(tag, tags),
        )
    return len(data.results_of(tag, iteration))


def check_stays(machine: SwarmMachine, recall: RecallResult) -> None:
    """Raises Refused unless such a result of the swarm stays on that node."""
    wanted = recall.node_id, recall.value, True
    items = machine.data.written(recall.iteration, recall.tag)
    if not any((one.node_id, one.value, one.held) == wanted for _, one in items):
        raise Refused(
            Code.RESULT_AWAY,
            f"The result {recall.tag!r} of iteration {recall.iteration} cannot be read: it stays "
            "on no such node; list the results again, as it may have been deleted.",
        )


def info(machine: SwarmMachine) -> SwarmInfo:
    data, spec = machine.data, machine.data.graph.spec
    return SwarmInfo(
        swarm_id=data.swarm_id,
        name=spec.name,
        cluster_id=data.cluster_id,
        status=data.state,
        reason=data.reason,
        iteration=data.iteration,
        max_iteration=data.graph.ceiling,
        created_at=data.created_at,
        started_at=data.started_at,
        ended_at=data.ended_at,
        task_count=len(spec.tasks),
    )


def unsigned(machine: SwarmMachine) -> SwarmSpec:
    """The swarm as it was sent, without what would let others send it in its user's name."""
    spec = machine.data.graph.spec
    tasks = tuple(replace(task, signature=b"") for task in spec.tasks)
    return replace(spec, tasks=tasks, signed=None)


def tasks(machine: SwarmMachine, iteration: int | None = None, after: int = 0) -> Tasks:
    """All attempts, ordered by iteration, place in the graph, index and attempt."""
    runs: Iterable[dict[str, TaskRun]] = machine.data.runs
    if iteration is not None:
        runs = machine.data.runs.between(iteration, iteration + 1) if iteration >= 0 else ()
    attempts = (
        attempt
        for by_alias in runs
        for run in by_alias.values()
        for instance in run.instances
        for attempt in instance.attempts
    )
    shown, more = fitting(islice(attempts, after, None), _attempt_bytes)
    return Tasks(tuple(map(_task, shown)), more)


def running(machine: SwarmMachine, task: str) -> Attempt:
    """The one attempt that runs and is meant by the end of a task's id. Raises Refused."""
    data = machine.data
    live = list(data.live.values())
    placed = [one for one in live if task in endings(one.instance)]
    # That it has begun may be on its way: its node knows.
    found = [one for one in placed if one.started_at is not None] or placed
    if len(found) == 1:
        return found[0]
    name = f"swarm {data.graph.spec.name!r} ({data.swarm_id})"
    some = listed(sorted(label(one.instance) for one in (found or live))[:SHOWN])
    if found:
        raise Refused(
            Code.AMBIGUOUS, f"{len(found)} instances of {task!r} run in {name}: say which, {some}."
        )
    there = f"what runs is {some}" if some else "nothing of it runs"
    raise Refused(Code.WRONG_STATE, f"No task {task!r} runs in {name}: {there}.")


def _task(attempt: Attempt) -> TaskInfo:
    return TaskInfo(
        instance=attempt.instance,
        task_id=attempt.assignment.task_id,
        status=attempt.state,
        node_id=attempt.node_id,
        node_alias=attempt.node_alias,
        placed_at=attempt.placed_at,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        output=attempt.output,
        error=attempt.error,
        timings=attempt.timings,
        progress=attempt.progress,
        datasets=attempt.datasets,
        reads=attempt.reads,
    )


def page(
    machine: SwarmMachine,
    feed: FeedName,
    after: int,
    limit: int = 1000,
    tag: str | None = None,
    *,
    settled: bool = False,
    end: int | None = None,
) -> FeedPage:
    """A page of the results, metrics or events; logs are in the store. Never waits.

    The cursor counts all items of the feed, including those that are left out because they
    have another tag or were deleted; with `settled`, all of `SwarmData.settled`. Items from `end`
    on are not shown. A page holds its first
    item, and further ones up to PAGE_BYTES: small values are part of it, and a message has a
    limit.
    """
    data = machine.data
    if feed == "logs":
        raise ValueError("the log feed is served from the store, not by the swarm's machine")
    items, found = data.packed[feed], list[Item]()
    order = data.settled if settled and feed == "results" else range(len(items))
    cursor = max(0, after)
    stop = len(order) if end is None else min(end, len(order))
    span = order[cursor:stop] if isinstance(order, range) else order.between(cursor, stop)
    positions, places = tee(span)
    room = PAGE_BYTES
    gone = data.deleted if feed == "results" else ()
    for position, item in zip(positions, items.at(places), strict=True):
        if len(found) == limit:
            break
        wanted = tag is None or not isinstance(item, ResultItem) or item.tag == tag
        if wanted and position not in gone:
            room -= _bytes(item)
            if room < 0 and found:
                break
            found.append(item)
        cursor += 1
    ended = machine.state.final and cursor >= len(order)
    return FeedPage(tuple(found), cursor, ended, info(machine))


def _bytes(item: Item) -> int:
    """About how many bytes an item takes in a message."""
    match item:
        case ResultItem(value=Inline(data)):
            return ITEM_BYTES + len(data)
        case MetricsItem(metrics=metrics):
            return ITEM_BYTES + sum(len(name) + 10 for name in metrics)
        case EventItem(sentence=sentence):
            return ITEM_BYTES + len(sentence)
        case _:
            return ITEM_BYTES


def select_results(
    machine: SwarmMachine, tag: str, iteration: int, after: int = 0
) -> ResultEntries:
    """For tasks: one result of each instance that has one which counts, ordered by alias and
    index."""
    results = islice(machine.data.counting(iteration, tag), after, None)
    shown, more = fitting(results, _bytes)
    return ResultEntries(
        tuple(
            ResultEntry(
                item.node_id,
                item.alias,
                item.index,
                item.iteration,
                item.attempt,
                item.value,
                item.held,
            )
            for item in shown
        ),
        more,
    )


def _attempt_bytes(attempt: Attempt) -> int:
    output, error = attempt.output, attempt.error
    size = ITEM_BYTES + (len(output.data) if isinstance(output, Inline) else 0)
    size += sum(len(one.name) + len(one.version) + 80 for one in attempt.datasets)
    size += sum(len(one.tag) + 10 for one in attempt.reads)
    if error is not None:
        size += len(error.sentence) + len(error.traceback) + sum(map(len, error.last_lines))
        size += BUNDLE_BYTES + len(error.bundle.stacks) if error.bundle is not None else 0
    return size


def explain(machine: SwarmMachine, nodes: Sequence[NodeView]) -> Plan:
    """Where each task of this iteration runs, or why it does not, node by node.

    Of many replicas, which are handed out bit by bit, only those that have not answered. What is
    wrong with a node is among the problems, whether or not a task waits for it.
    """
    data = machine.data
    found: dict[str, Outcome] = {}
    for alias in data.graph.tasks if data.iteration < 0 else data.runs[data.iteration]:
        run = data.run_of(alias) if data.runs else None
        placements = tuple(
            Placement(index, instance.last.node_id, instance.last.node_alias)
            for index, instance in enumerate(run.instances if run else ())
            if not (run and run.nodes) or instance.is_open
        )
        found[alias] = Outcome(placements, (), (), run.waiting if run else 0)
        wanted = [ask.replace for ask in data.asks.values() if ask.alias == alias]
        is_placed = run is not None and run.phase in (Phase.RUNNING, Phase.DONE) and not wanted
        if data.state.final or is_placed:
            continue
        outcome = place(demand_of(data, alias, wanted[0] if wanted else ()), nodes)
        problems, waiting = outcome.problems, outcome.waiting or found[alias].waiting
        if run is not None and run.phase is Phase.WAITING:
            # Where a result will have been written is not known before the task's turn.
            problems = (_waits(machine, run),)
        found[alias] = Outcome(placements, outcome.verdicts, problems, waiting)
    graph = data.graph
    specs = [graph.tasks[alias] for alias in found]
    tasks = {task.alias: (task, graph.modules[task.module]) for task in specs}
    if data.state.final:
        return gathered(found, tasks, nodes, [sentences.state(data)])
    return gathered(found, tasks, nodes, [node.notice for node in nodes if node.notice])


def _waits(machine: SwarmMachine, run: TaskRun) -> str:
    before = []
    for edge in run.before:
        other = machine.data.run_of(edge.alias)
        if other.phase is not Phase.DONE:
            answered = f"{other.finished} of {other.size} have answered"
            before.append(f"{edge.alias} ({answered if other.size else other.phase.lower()})")
    return f"Task {run.spec.alias!r} waits for {listed(before)}."
