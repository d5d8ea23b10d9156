"""Where a call is carried out, by a roster, and when it has to be begun anew. Pure.

A call is carried out at the places that the first plane that begins it sees. It is begun anew, at
later ones, with what its members gave, where an instance is on another node, a plane has forgotten
what its members gave, or the call has failed because of a loss. Whoever has a reason does so; who
hears of later places follows, and waits for the roster that says so. What is said at earlier places
does not count any more.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.messages import Places
from manta.protocol.roster import RosterTask
from manta.roster import waits
from manta.transports.collectives.calls import Kind, Placement
from manta.transports.collectives.messages import Aborted, Announcement, Finished, Message


class Placed(NamedTuple):
    """As this plane sees it."""

    placement: Placement
    nodes: tuple[str, ...]
    """By peer: their ids."""
    me: int
    places: Places


def places(task: RosterTask) -> Places:
    """Each instance that begins another attempt makes the version greater."""
    version = sum(one.attempt for one in task.instances)
    named = blake2b(digest_size=8)
    for one in task.instances:
        data = one.node_id.encode("utf-8", "surrogatepass")
        named.update(len(data).to_bytes(4, "little") + data)
    return Places(version, named.digest())


def placed(task: RosterTask, me: str, is_there: Callable[[str], bool]) -> Placed | None:
    """None while the roster does not say where all are."""
    ids = tuple(one.node_id for one in task.instances)
    if len(ids) < task.size or me not in ids:
        return None
    if not all(is_there(one.node_id) or not waits.is_open(one) for one in task.instances):
        return None  # it is placed anew, or given up
    aliases = {one.node_id: one.node_alias for one in task.instances}
    by_id = Placement.of(task.alias, ids)
    nodes = by_id.nodes
    placement = Placement(task.alias, tuple(aliases[node] for node in nodes), by_id.ranks)
    return Placed(placement, nodes, nodes.index(me), places(task))


def stayed(before: RosterTask, task: RosterTask | None, me: str) -> set[int]:
    """Which ranks have been here since the roster before. If none has, others may have begun the
    calls of the task anew without this plane: what it has of them does not count."""
    now = () if task is None else task.instances
    both = zip(before.instances, now, strict=False)
    return {
        one.rank for old, one in both if one.node_id == old.node_id == me and one.stay == old.stay
    }


def is_outdated(call: Call, task: RosterTask, rank: int | None = None) -> bool:
    """Is there a reason here to begin it anew at the places that the roster has? `rank` is of a
    member that is here now."""
    now, machine = places(task), call.meeting.machine
    if now.version <= call.places.version:
        return False
    if machine.has_failed or call.lacks:
        return not is_hopeless(call)
    if rank is not None and rank not in call.own:
        return True
    return not call.is_over and (now.nodes != call.places.nodes or bool(call.gone))


def is_hopeless(call: Call) -> bool:
    """Has it failed so that it does at all places?"""
    return call.meeting.machine.failure[0] == "CollectiveError"


def is_unrepeatable(call: Call) -> bool:
    """Would it lack what members here gave and will not give again, as they have gone on?"""
    machine = call.meeting.machine
    return call.meeting.has_let_go and any(machine.has_delivered(rank) for rank in call.own)


def needs_nothing(call: Call, message: Message) -> bool:
    """Is nothing to come of a call that is over here, for who says this as of later places?"""
    if not call.is_over or call.meeting.machine.has_failed:
        return False
    if isinstance(message, Finished | Aborted):
        return True
    return isinstance(message, Announcement) and message.done is not None


def goes_without(call: Call, task: RosterTask) -> bool:
    """Is it over here, and need this plane not take part where others begin it anew? Its root is
    here and has all values, or it is not and what it gave has arrived for all that are here."""
    machine = call.meeting.machine
    if not call.is_over or machine.has_failed or machine.call is None:
        return False
    kind, root = machine.call.kind, machine.call.root
    here = {one.rank for one in task.instances if one.node_id == call.nodes[call.me]}
    if kind is Kind.GATHER:
        return root in here.intersection(call.own) and not call.lacks
    return kind.has_root and root not in here and here.issubset(call.own)
