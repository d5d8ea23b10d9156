"""The roster of a swarm's iteration: what its tasks have to know of each other to wait.

Nodes that want it are told by `RosterNews`: the whole once, then what changed, at most so many
times a second, and in the end always the latest. While a node runs nothing of the swarm it is told
nothing, and then the whole again.
"""

from __future__ import annotations

from collections.abc import Callable, Container

from manta.manager.swarm.state import InstanceRun, SwarmData, TaskRun
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.roster import (
    NONE,
    Former,
    Roster,
    RosterInstance,
    RosterTask,
    RosterTold,
    WantRoster,
)
from manta.protocol.states import AttemptState
from manta.roster.differences import told

MOST_SAID = 1000
"""Characters of why an instance was given up."""

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
        _former(data),
    )


def _former(data: SwarmData) -> Former:
    """What counted in the iteration before."""
    found: Former = {}
    before = data.runs[data.iteration - 1] if data.iteration > 0 else {}
    for alias, run in before.items():
        for rank, one in enumerate(run.instances):
            last = one.last
            counted = last.instance.attempt if last.state is AttemptState.FINISHED else NONE
            if counted:
                found.setdefault(alias, {})[rank] = counted
    return found


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
        run.given_up[:MOST_SAID],
        rooms.get(last.node_id, 0),
        run.stay,
    )


PAUSE = 0.05
"""Seconds between two tellings."""


class RosterNews:
    """Who is told of one swarm's roster. All times are monotonic seconds."""

    def __init__(self, swarm_id: str, page_bytes: int = PAGE_BYTES) -> None:
        self._swarm_id = swarm_id
        self._page_bytes = page_bytes
        self._readers: dict[str, bool] = {}
        """Nodes that want it, and whether each has what was told last."""
        self._told: Roster | None = None
        self._version = 0
        self._at = -PAUSE
        """When it was told last."""

    @property
    def wanted(self) -> bool:
        return bool(self._readers)

    def want(self, node_id: str, message: WantRoster) -> None:
        if message.wanted:
            self._readers[node_id] = False
        else:
            self.leave(node_id)

    def leave(self, node_id: str) -> None:
        """The node wants it no more, or is gone."""
        self._readers.pop(node_id, None)
        if not self._readers:
            self._told = None

    def lost(self) -> None:
        """What was told last may not have been sent."""
        self._readers = dict.fromkeys(self._readers, False)

    def due(self, now: float) -> float:
        """When to tell next; not later than now if that is allowed at once."""
        return max(now, self._at + PAUSE)

    def tell(
        self, roster: Roster, members: Container[str], now: float
    ) -> list[tuple[str, RosterTold]]:
        """What each node is told, in this order. `members`: nodes of the swarm's directory; the
        roster is as it is now."""
        self._at = now
        before, since = self._told, self._version
        if before != roster:
            self._version += 1
            self._told = roster
        news = self._cut(roster, before, since) if before not in (None, roster) else []
        whole: list[RosterTold] = []
        messages: list[tuple[str, RosterTold]] = []
        for node_id, has_last in self._readers.items():
            is_told = node_id in members
            self._readers[node_id] = is_told
            if is_told and not has_last:
                whole = whole or self._cut(roster)
            if is_told:
                messages += ((node_id, part) for part in (news if has_last else whole))
        return messages

    def _cut(
        self, roster: Roster, before: Roster | None = None, since: int = 0
    ) -> list[RosterTold]:
        return told(self._swarm_id, roster, self._version, before, since, self._page_bytes)
