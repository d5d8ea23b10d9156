"""Who takes part in an iteration of a swarm, as nodes are told whose tasks wait for each other.

A node that says that it wants a swarm's roster is told the whole once, and what changes after
that, for as long as it runs attempts of the swarm. What follows from a roster is in
`manta.roster`.
"""

from __future__ import annotations

import msgspec

from manta.protocol.base import Message, Ok
from manta.protocol.spec import NetworkSpec


class RosterInstance(msgspec.Struct, frozen=True, array_like=True):
    """An instance of a task, by its last attempt. `state` is an AttemptState; `given_up` says why
    it will not answer any more."""

    rank: int
    node_id: str
    node_alias: str
    attempt: int
    state: str
    given_up: str = ""
    places: int = 0
    """How many instances of its task its node runs at the same time, at most."""
    stay: int = 0
    """Another number each time that it has come to a node, or its node was lost: between two
    rosters with the same one, others have not gone on without what is there."""


class RosterTask(msgspec.Struct, frozen=True, omit_defaults=True):
    """A task in the iteration. `phase` is WAITING, PLACING, RUNNING or DONE."""

    alias: str
    phase: str
    size: int
    """How many instances it has, with those that have no node yet."""
    followed_by: tuple[str, ...] = ()
    """The tasks that come directly after it."""
    sequential: bool = False
    windowed: bool = False
    """Its instances are more than run at the same time, and are handed out bit by bit."""
    has_queued: bool = False
    """There are instances whose turn has not come."""
    network: str | None = None
    instances: tuple[RosterInstance, ...] = ()
    """In order of their ranks. Those that are queued may be missing at the end."""


Former = dict[str, dict[int, int]]
"""By alias and rank: which attempt counted of an instance of the iteration before, NONE if none
did. Where an instance is missing, its first one counted, if it was in that iteration."""
NONE = -1


class Roster(msgspec.Struct, frozen=True):
    """`epoch` names the manager's timeline of the swarm, as in its directory."""

    epoch: str
    iteration: int
    tasks: dict[str, RosterTask]
    """By alias."""
    networks: dict[str, NetworkSpec]
    """By name."""
    former: Former = {}


# Node to manager.


class WantRoster(Message, frozen=True):
    """From now on the node wants to be told, the whole first; or it wants that no longer."""

    swarm_id: str
    wanted: bool = True


WantRoster.reply = Ok

# Manager to node.


class RosterTold(Message, frozen=True):
    """Makes `version` of the version `since`; of nothing, if that is 0.

    Of each task that changed it has all but the instances that are as they were; what counted in
    the iteration before, only where it makes it of nothing. It comes in `part`s, counted from 0,
    until one says that there are no more; they take effect together. A node that has another
    version than `since`, or lacks a part, says again that it wants it.
    """

    swarm_id: str
    epoch: str
    iteration: int
    version: int
    since: int
    tasks: tuple[RosterTask, ...] = ()
    networks: tuple[NetworkSpec, ...] = ()
    part: int = 0
    more: bool = False
    former: Former = {}
