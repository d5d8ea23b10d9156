"""Which instances of a task are queued behind others that wait for them.

A collective that waits for all needs all instances to run at the same time. A node runs as many
as it has places, and queues the rest in the order in which it was given them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from manta.manager.placement.nodes import NodeView, places
from manta.manager.swarm.sentences import label
from manta.manager.swarm.state import Attempt, Phase, SwarmData, TaskRun
from manta.protocol.exchange import ReadContributions
from manta.protocol.names import listed
from manta.protocol.roster import RosterInstance, RosterTask
from manta.protocol.spec import resources_of
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.roster.waits import WAITS_FOR_ALL, operation

Nodes = Callable[[], Sequence[NodeView]]


def deadlock(data: SwarmData, read: ReadContributions, task: RosterTask, nodes: Nodes) -> str:
    """Why the collective can never be complete, or nothing."""
    spec = data.graph.tasks[task.alias]
    asked = resources_of(spec, data.graph.modules[spec.module])

    def places_of(one: RosterInstance) -> int | None:
        return next((places(node, asked) for node in nodes() if node.id == one.node_id), None)

    return waits.deadlock(task, read.kind, _come(data, read), places_of)


def queued_behind(data: SwarmData, nodes: Nodes) -> str:
    """Who is queued, while others of its task wait for it in a collective; or nothing."""
    said: list[str] = []
    for alias, calls in data.exchange.calls.items():
        number = max(calls.values())
        run = data.runs[data.iteration][alias]
        kinds = data.exchange.collectives[data.iteration, alias, number].kinds
        kind = operation(next(iter(kinds.values())))
        if run.phase is not Phase.RUNNING or kind not in WAITS_FOR_ALL:
            continue
        late_on: dict[str, list[Attempt]] = {}
        for one in filter(_is_queued, _live(run)):
            late_on.setdefault(one.node_id, []).append(one)
        for node in nodes() if late_on else ():
            if node.id not in late_on:
                continue
            late = late_on[node.id]
            given = node.assigned + data.held.get(node.id, 0)
            over = given - node.capabilities.max_concurrent_tasks
            if (behind := late[max(0, len(late) - over) :]) and over > 0:
                room = node.capabilities.max_concurrent_tasks
                said.append(
                    f"{_names(behind)} {_are(behind)} queued on {node.alias}, whose {room} places "
                    f"are taken, and others of {alias!r} wait for them ({kind})"
                )
    return f"{listed(said, '; ')}." if said else ""


def outcome_is_read(read: ReadContributions) -> bool:
    """Whether the wait is for what rank 0 makes of the values of an all_reduce: a collective of its
    own, the next, in which all others wait."""
    return operation(read.kind) == "all_reduce" and read.ranks == (0,)


def has_waited(kind: str | None, rank: int) -> bool:
    """Whether an instance that called this waited for others; None where it gave nothing."""
    return kind is None or operation(kind) in WAITS_FOR_ALL or kind == f"gather(root={rank})"


def _come(data: SwarmData, read: ReadContributions) -> frozenset[int]:
    """Ranks that have come to the collective."""
    at, numbers = (
        read.instance,
        [read.number, *([read.number - 1] if outcome_is_read(read) else ())],
    )
    found = (data.exchange.collectives.get((at.iteration, at.alias, one)) for one in numbers)
    return frozenset(rank for one in found if one is not None for rank, _ in one.parts)


def _live(run: TaskRun) -> list[Attempt]:
    """In the order of their ranks."""
    return [one.last for one in run.instances if not one.last.state.final]


def _is_queued(attempt: Attempt) -> bool:
    """It has not begun: it is queued, or being started."""
    return attempt.state is AttemptState.PLACED


def _names(attempts: Iterable[Attempt]) -> str:
    return listed([label(attempt) for attempt in attempts])


def _are(attempts: list[Attempt]) -> str:
    return "is" if len(attempts) == 1 else "are"
