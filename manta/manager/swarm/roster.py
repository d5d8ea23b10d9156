"""The roster of a swarm's iteration: what its tasks have to know of each other to wait."""

from __future__ import annotations

from collections.abc import Callable

from manta.manager.swarm.state import InstanceRun, SwarmData, TaskRun
from manta.protocol.roster import Roster, RosterInstance, RosterTask

Places = Callable[[str, str], int]
"""How many instances of a task (its alias) a node (its id) runs at the same time, at most."""


def roster_of(data: SwarmData, places: Places | None = None) -> Roster:
    """The roster as things stand, without tasks before the first iteration."""
    if data.iteration < 0:
        return Roster(data.backup, data.iteration, {}, {})
    after = data.graph.layout(data.iteration).after
    return Roster(
        data.backup,
        data.iteration,
        {
            alias: _task(run, tuple(after[alias]), places)
            for alias, run in data.runs[data.iteration].items()
        },
        data.graph.networks,
    )


def _task(run: TaskRun, followed_by: tuple[str, ...], places: Places | None) -> RosterTask:
    alias = run.spec.alias
    rooms = {} if places is None else {one.last.node_id: 0 for one in run.instances}
    for node_id in rooms:
        rooms[node_id] = places(alias, node_id) if places is not None else 0
    first = run.instances[0].last.assignment.size if run.instances else 0
    return RosterTask(
        alias,
        run.phase,
        max(run.size, first),  # those whose turn will not come count
        followed_by,
        run.sequential,
        bool(run.nodes),
        run.has_queued,
        run.spec.network,
        tuple(_instance(rank, one, rooms) for rank, one in enumerate(run.instances)),
    )


def _instance(rank: int, run: InstanceRun, rooms: dict[str, int]) -> RosterInstance:
    last = run.last
    return RosterInstance(
        rank,
        last.node_id,
        last.node_alias,
        last.instance.attempt,
        last.state,
        run.given_up,
        rooms.get(last.node_id, 0),
    )
