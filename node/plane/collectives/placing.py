"""Where a call is carried out, by a roster, and when it has to be begun anew. Pure.

A call is carried out at the places that the first plane that begins it sees. It is begun anew, at
later ones, with what its members gave, where an instance is on another node, a plane has forgotten
what its members gave, or the call has failed because of a loss. Whoever has a reason does so; who
hears of later places follows, and waits for the roster that says so. What is said at earlier places
does not count any more. Where no roster says why, as a plane began anew whose members had ended,
the call is begun anew at the same places, which counts how often.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.messages import Places
from manta.protocol.roster import Roster, RosterTask
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.transports.collectives.calls import Kind, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.messages import Aborted, Announcement, Finished, Message
from manta.transports.collectives.refusal import NO_ROOM


class Placed(NamedTuple):
    """As this plane sees it."""

    placement: Placement
    nodes: tuple[str, ...]
    """By peer: their ids."""
    peers: dict[str, int]
    """The same, by id."""
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
    peers = {node: peer for peer, node in enumerate(nodes)}
    return Placed(placement, nodes, peers, peers[me], places(task))


class Placings:
    """What is asked of a roster for each call and each message: found out once for each task."""

    def __init__(self, me: str, is_there: Callable[[str], bool]) -> None:
        self._me = me
        self._is_there = is_there
        self._places: dict[str, Places] = {}
        self._placed: dict[str, Placed | None] = {}
        self._problems: dict[str, str] = {}
        self._queued: dict[str, bool] = {}

    def forget(self) -> None:
        """The roster, or the directory, is another."""
        for known in (self._places, self._placed, self._problems, self._queued):
            known.clear()

    def places(self, task: RosterTask) -> Places:
        found = self._places.get(task.alias)
        if found is None:
            found = self._places[task.alias] = places(task)
        return found

    def placed(self, task: RosterTask) -> Placed | None:
        if task.alias not in self._placed:
            self._placed[task.alias] = placed(task, self._me, self._is_there)
        return self._placed[task.alias]

    def problem(self, roster: Roster, task: RosterTask) -> str:
        """Why its instances can't meet, or nothing."""
        if task.alias not in self._problems:
            self._problems[task.alias] = waits.cannot_meet(roster, task.alias)
        return self._problems[task.alias]

    def is_queued(self, task: RosterTask) -> bool:
        """Is an instance of it yet to begin?"""
        if task.alias not in self._queued:
            states = (one.state for one in task.instances)
            self._queued[task.alias] = AttemptState.PLACED in states
        return self._queued[task.alias]


def stayed(before: RosterTask, task: RosterTask | None, me: str) -> set[int]:
    """Which ranks have been here since the roster before. If none has, others may have begun the
    calls of the task anew without this plane: what it has of them does not count."""
    now = () if task is None else task.instances
    both = zip(before.instances, now, strict=False)
    return {
        one.rank for old, one in both if one.node_id == old.node_id == me and one.stay == old.stay
    }


def is_outdated(call: Call, now: Places, rank: int | None = None) -> bool:
    """Is there a reason here to begin it anew at the places that the roster has? `rank` is of a
    member that is here now."""
    machine = call.meeting.machine
    if now.version <= call.places.version:
        return False
    if machine.has_failed or call.lacks:
        return not is_hopeless(call)
    if rank is not None and rank not in call.own:
        return True
    return not call.is_over and (now.nodes != call.places.nodes or bool(call.gone))


def anew(call: Call, task: RosterTask) -> Places:
    """Where it is begun anew, if a plane has forgotten what its members gave. What it gives again
    need not be the same at the same version: an attempt goes on that had not met its plane before,
    though one before it gave."""
    now = places(task)
    return now if now.version > call.places.version else call.places.again()


def after(places: Places, passed: Places | None) -> Places:
    """Those, or later ones than where this plane took no part: there it is told nothing again."""
    return places if passed is None or places.order > passed.order else passed.again()


def is_repeated(call: Call, message: Message) -> bool:
    """Does a plane say this of a call that is over here because it has begun it anew since, and
    waits for what it had been told before? In a gather its root alone waits, which has said before
    that it has all."""
    machine = call.meeting.machine
    if not call.is_over or not isinstance(machine, Collective):
        return False
    if machine.call is None or not isinstance(message, Announcement) or has_all(message):
        return False
    ranks = {member.rank for member in message.members}
    if machine.call.kind is Kind.GATHER:
        return machine.call.root in ranks
    return bool(ranks) and all(rank in machine.come for rank in ranks)


def goes_on(call: Call) -> bool:
    """Has it failed for the members here alone, as others go on without them?"""
    machine = call.meeting.machine
    waits = machine.call is None or machine.call.kind.has_root or machine.call.on_lost == "raise"
    return not waits and machine.failure[0] == "PeerLost"


def is_hopeless(call: Call) -> bool:
    """Has it failed so that it does at all places? Of one that was refused some here had what is
    theirs: else it is known as refused alone (`kept.Refused`)."""
    return call.meeting.machine.failure[0] in ("CollectiveError", NO_ROOM)


def is_unrepeatable(call: Call) -> bool:
    """Would it lack what members here gave and will not give again, as they have gone on?"""
    machine = call.meeting.machine
    had = any(rank in call.had or machine.has_delivered(rank) for rank in call.own)
    return call.meeting.has_let_go and had


def needs_nothing(call: Call, message: Message) -> bool:
    """Is nothing to come of a call that is over here, for who says this as of later places?"""
    if not call.is_over or call.meeting.machine.has_failed:
        return False
    return has_all(message)


def has_all(message: Message) -> bool:
    """Does who says this want nothing?"""
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
