"""What users and nodes may read of a swarm, and how its placements are answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import assert_never

from manta.actors import Refused
from manta.manager.placement.names import listed
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.place import WINDOW, place
from manta.manager.swarm import sentences
from manta.manager.swarm.events import Placed, Unplaceable
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.placing import demand_of
from manta.manager.swarm.runs import Attempt, Phase, TaskRun
from manta.protocol.codes import Code
from manta.protocol.node import ResultEntries, ResultEntry
from manta.protocol.pages import PAGE_BYTES, fitting
from manta.protocol.user import (
    EventItem,
    FeedName,
    FeedPage,
    MetricsItem,
    PlacedInstance,
    Plan,
    ReadFeed,
    ResultItem,
    SwarmInfo,
    TaskInfo,
    Tasks,
    Verdict,
)
from manta.protocol.values import Inline

ITEM_BYTES = 300


def answer(
    machine: SwarmMachine, number: int, nodes: Sequence[NodeView], window: int = WINDOW
) -> Placed | Unplaceable | None:
    """The event that answers AskPlacement(number); None when it is no longer wanted."""
    demand = machine.demand(number)
    if demand is None:
        return None
    outcome = place(demand, nodes, window)
    if outcome.problems:
        return Unplaceable(number, outcome.problems[0])
    return Placed(number, outcome.placements, outcome.waiting)


def check_filters(machine: SwarmMachine, read: ReadFeed, nodes: Mapping[str, str]) -> None:
    """Raises Refused for a task that the swarm does not have, or a node (id -> alias) that is
    not in its cluster: nothing would ever be read."""
    tasks = [task.alias for task in machine.graph.spec.tasks]
    if read.task is not None and read.task not in tasks:
        raise Refused(
            Code.UNKNOWN_TASK,
            f"The swarm {machine.graph.spec.name!r} has no task {read.task!r}: "
            f"there {'is' if len(tasks) == 1 else 'are'} {', '.join(tasks)}.",
        )
    if read.node is not None and read.node not in {*nodes, *nodes.values()}:
        there = ", ".join(sorted(nodes.values())) or "none"
        raise Refused(
            Code.UNKNOWN_NODE,
            f"There is no node {read.node!r} in this swarm's cluster: there are {there}.",
        )


def deletable(machine: SwarmMachine, tag: str | None, iteration: int | None) -> int:
    """How many results that are. Raises Refused for a tag of which the swarm has none."""
    data = machine.data
    if tag is not None and not data.results_of(tag, None):
        tags = sorted({data.results[position].tag for position in data.results_of(None, None)})
        there = f"it has {listed(tags)}" if tags else "it has no results at all"
        raise Refused(
            Code.UNKNOWN_TAG,
            f"Swarm {machine.graph.spec.name!r} ({data.swarm_id}) has no results of tag {tag!r}: "
            f"{there}.",
        )
    return len(data.results_of(tag, iteration))


def info(machine: SwarmMachine) -> SwarmInfo:
    data, spec = machine.data, machine.graph.spec
    return SwarmInfo(
        swarm_id=data.swarm_id,
        name=spec.name,
        cluster_id=data.cluster_id,
        status=data.state,
        reason=data.reason,
        iteration=data.iteration,
        max_iteration=machine.graph.ceiling,
        created_at=data.created_at,
        started_at=data.started_at,
        ended_at=data.ended_at,
        task_count=len(spec.tasks),
    )


def tasks(machine: SwarmMachine, iteration: int | None = None, after: int = 0) -> Tasks:
    """Every attempt, in the order of iteration, graph, index and attempt."""
    runs = machine.data.runs
    if iteration is not None:
        runs = runs[iteration : iteration + 1] if iteration >= 0 else []
    attempts = (
        attempt
        for by_alias in runs
        for run in by_alias.values()
        for instance in run.instances
        for attempt in instance.attempts
    )
    shown, more = fitting(islice(attempts, after, None), _attempt_bytes)
    return Tasks(tuple(map(_task, shown)), more)


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
    )


def page(
    machine: SwarmMachine,
    feed: FeedName,
    after: int,
    limit: int = 1000,
    tag: str | None = None,
    *,
    end: int | None = None,
) -> FeedPage:
    """Of the feeds results, metrics and events; logs are the store's. Never waits.

    The cursor counts the feed's items, also those that were passed over: of other tags, deleted.
    Items from `end` on are not shown. A page ends before PAGE_BYTES, unless with its first
    item: small values ride in it, and a message has a limit.
    """
    items: Sequence[ResultItem | MetricsItem | EventItem]
    match feed:
        case "results":
            items = machine.data.results
        case "metrics":
            items = machine.data.metrics
        case "events":
            items = machine.data.events
        case "logs":
            raise ValueError("the log feed is served from the store, not by the swarm's machine")
        case _:
            assert_never(feed)
    found: list[ResultItem | MetricsItem | EventItem] = []
    cursor = max(0, after)
    stop = len(items) if end is None else min(end, len(items))
    room = PAGE_BYTES
    gone = machine.data.deleted if feed == "results" else ()
    while cursor < stop and len(found) < limit:
        item = items[cursor]
        wanted = tag is None or not isinstance(item, ResultItem) or item.tag == tag
        if wanted and cursor not in gone:
            room -= _bytes(item)
            if room < 0 and found:
                break
            found.append(item)
        cursor += 1
    ended = machine.state.final and cursor >= len(items)
    return FeedPage(tuple(found), cursor, ended, info(machine))


def _bytes(item: ResultItem | MetricsItem | EventItem) -> int:
    """About what an item takes in a message."""
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
    """For tasks: one result of each instance that has one which counts, by alias and index."""
    results = islice(machine.data.counting(iteration, tag), after, None)
    shown, more = fitting(results, _bytes)
    return ResultEntries(
        tuple(
            ResultEntry(
                item.node_id, item.alias, item.index, item.iteration, item.attempt, item.value
            )
            for item in shown
        ),
        more,
    )


def _attempt_bytes(attempt: Attempt) -> int:
    output, error = attempt.output, attempt.error
    size = ITEM_BYTES + (len(output.data) if isinstance(output, Inline) else 0)
    if error is not None:
        size += len(error.sentence) + len(error.traceback) + sum(map(len, error.last_lines))
    return size


def explain(machine: SwarmMachine, nodes: Sequence[NodeView]) -> Plan:
    """Where each task of this iteration runs, or why it does not, node by node.

    Of replicas that are handed out bit by bit, those that have not answered.
    """
    data = machine.data
    placements: list[PlacedInstance] = []
    verdicts: list[Verdict] = []
    problems: list[str] = []
    waiting: dict[str, int] = {}
    if data.state.final:
        problems.append(sentences.state(data))
    for alias in data.runs[data.iteration] if data.iteration >= 0 else machine.graph.tasks:
        run = data.run_of(alias) if data.iteration >= 0 else None
        placements += (
            PlacedInstance(alias, index, instance.last.node_id, instance.last.node_alias)
            for index, instance in enumerate(run.instances if run else ())
            if not (run and run.nodes) or instance.is_open
        )
        if run is not None and run.waiting:
            waiting[alias] = run.waiting
        if data.state.final:
            continue
        wanted = [ask.replace for ask in data.asks.values() if ask.alias == alias]
        if run is not None and run.phase is Phase.WAITING:
            problems.append(_waits(machine, run))
        if run is None or run.phase in (Phase.WAITING, Phase.PLACING) or wanted:
            outcome = place(demand_of(data, alias, wanted[0] if wanted else ()), nodes)
            verdicts += outcome.verdicts
            if outcome.waiting:
                waiting[alias] = outcome.waiting
            # Where a result will have been written is not known before the task's turn.
            if run is None or run.phase is not Phase.WAITING:
                problems += outcome.problems
    return Plan(tuple(placements), tuple(verdicts), tuple(problems), waiting)


def _waits(machine: SwarmMachine, run: TaskRun) -> str:
    before = []
    for edge in run.before:
        other = machine.data.run_of(edge.alias)
        if other.phase is not Phase.DONE:
            answered = f"{other.finished} of {other.size} have answered"
            before.append(f"{edge.alias} ({answered if other.size else other.phase.lower()})")
    return f"Task {run.spec.alias!r} waits for {listed(before)}."
