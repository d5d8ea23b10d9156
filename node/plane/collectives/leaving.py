"""How a plane ends in good order: who would lack what is theirs of calls, and what it says last.

Others may be in a call yet of which the members here have what they called for: it may have to come
to them by way of a third plane. They are told how far members here have come, as the last of all,
so that they take this plane for lost only in the calls after.
"""

from __future__ import annotations

from collections.abc import Collection

from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.kept import FAR, Calls
from manta.node.plane.collectives.messages import CallName
from manta.node.plane.collectives.peers import Peers
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.messages import Left


def lacking(calls: Calls, peers: Peers, *, waits: bool) -> set[str]:
    """The nodes that are yet to hear or to get something. With `waits`, those count as well that
    are yet to make a call which members here have made, and would need something of it then."""
    found = peers.unheard()
    for call in calls.all:
        found.update(call.nodes[peer] for peer in call.meeting.receivers)
    for call in calls.open:
        if call.is_joined and _owes(call) and (waits or _is_met(call)):
            found.update(_others(call))
    return found


def say_farewell(calls: Calls, peers: Peers, lacking: Collection[str]) -> None:
    """To all that have a part in calls, but those that lack something."""
    last: dict[tuple[int, str], Call] = {}
    for call in calls.all:
        of = call.name.era, call.name.task
        if call.is_joined and (of not in last or call.name.number > last[of].name.number):
            last[of] = call
    for (era, task), call in last.items():
        opened = calls.open_of(era, task)
        but = tuple(one.name.number for one in opened if not one.is_joined or _owes(one))
        if len(but) > FAR:
            continue
        name = CallName(era, task, call.name.number + 1)
        for node in _others(call).difference(lacking):
            peers.say(node, name, call.places, Left(but))


def _others(call: Call) -> set[str]:
    return {node for node, peer in call.peers.items() if peer != call.me}


def _owes(call: Call) -> bool:
    """May others need more of this plane than what was said?"""
    machine = call.meeting.machine
    if not isinstance(machine, Collective) or machine.call is None:
        return False
    return machine.sends or not machine.call.kind.has_root


def _is_met(call: Call) -> bool:
    """Have those come that need it?"""
    machine, wanting = call.meeting.machine, range(call.meeting.placement.size)
    if machine.call is not None and machine.call.kind is Kind.GATHER:
        wanting = range(machine.call.root, machine.call.root + 1)
    return all(rank in machine.come or rank in machine.away for rank in wanting)
