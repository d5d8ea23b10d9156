"""What a desk makes of what the planes of other nodes say, and of what becomes of them."""

from __future__ import annotations

from typing import Protocol

from manta.node.plane.collectives import losses, placing
from manta.node.plane.collectives.calls import Call
from manta.node.plane.collectives.kept import FAR, Calls
from manta.node.plane.collectives.lasting import Lasting
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.messages import CallName, CollectiveSaid, Places
from manta.node.plane.collectives.peers import Peers
from manta.node.plane.collectives.post import OVERHEAD, Heard
from manta.protocol.roster import Roster, RosterTask
from manta.transports.collectives.messages import (
    Aborted,
    Announcement,
    Begun,
    Finished,
    Left,
    Message,
    Probe,
)
from manta.transports.collectives.refusal import NO_ROOM
from manta.transports.errors import RemoteProtocolError


class Desk(Protocol):
    """Whose calls it is about."""

    calls: Calls
    lasting: Lasting
    peers: Peers
    placings: placing.Placings
    most_announced: int
    """Bytes that a node may say of calls that no member here has made."""
    roster: Roster | None

    def begin(self, name: CallName, task: RosterTask, places: Places | None = None) -> Call | None:
        """None while the roster does not say where all are, or what was kept of it is yet to be
        read. Others may have begun it at `places` before."""

    def begin_anew(self, call: Call, task: RosterTask, places: Places | None = None) -> Call | None:
        """The same of one that is there."""

    def look(self, call: Call) -> None:
        """What may follow from anything that has happened to it or to its members."""

    def forget(self, call: Call) -> None:
        """What came of it counts no more; who waits for that fails."""

    def tell(self, meeting: Meeting, peer: int, message: Message) -> None:
        """Says it to the peer, at the places of its call."""

    def retry(self) -> None:
        """Calls that waited may be begun."""


class Hearing:
    """Implements `peers.Listener`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._left: dict[str, tuple[CallName, Left]] = {}
        """By node: what it said as it left."""

    def lost(self, node: str, why: str) -> None:
        """A node is in the swarm no longer."""
        self._desk.lasting.forgot(node)
        for call in self._desk.calls.open:
            if node not in call.peers:
                continue
            call.told.pop(node, None)
            if self._has_left(call, node):
                call.left.add(node)
                call.meeting.peer_left(call.peers[node], why)
            else:
                call.meeting.peer_lost(call.peers[node], why)
            self._desk.look(call)

    def _has_left(self, call: Call, node: str) -> bool:
        """In good order, with nothing of the call to be done there?"""
        first, left = self._left.get(node, (None, None))
        if first is None or left is None or call.name.number in left.but:
            return False
        same = (first.era, first.task) == (call.name.era, call.name.task)
        return same and call.name.number < first.number

    def lost_by(self, node: str) -> None:
        """What was said to it is lost. It is said again: of a call from before, it answers that it
        goes on without this plane. Those that are over may have come to something else since, also
        where it has no part in them: what came of them here is given to nobody."""
        self._desk.lasting.restored.lost()
        self._left.pop(node, None)
        for call in self._desk.calls.all:
            is_done = call.meeting.machine.outcome is not None
            if is_done and not losses.stands(call, self._task(call.name)):
                self._desk.forget(call)
        for call in self._desk.calls.open:
            if node not in call.peers or self._say_again(call, node):
                continue
            machine = call.meeting.machine
            if machine.call is None or machine.call.kind.has_root:
                continue  # it waits for nothing from here, nor does this plane from there
            if any(rank in machine.come for rank in call.own):
                call.meeting.left_out()  # it may never hear of it
                self._desk.look(call)

    def begun_anew(self, node: str) -> None:
        self._desk.lasting.forgot(node)
        if self._desk.roster is not None:
            self._desk.lasting.look(self._desk.roster)
        self._left.pop(node, None)
        for call in self._desk.calls.open:
            if node not in call.peers or call.is_over:
                continue
            if call.meeting.machine.counts_on(call.peers[node]):
                call.gone.add(node)
                if (task := self._task(call.name)) is not None:
                    self.look_at_gone(call, task)
                continue
            self._say_again(call, node)

    def _say_again(self, call: Call, node: str) -> bool:
        """All that was said to it of the call, if anything was."""
        told = call.told.get(node, [])
        for message in told:
            self._desk.peers.say(node, call.name, call.places, message)
        return bool(told)

    def took(self, node: str) -> None:
        self._desk.retry()

    def _task(self, name: CallName) -> RosterTask | None:
        roster = self._desk.roster
        return None if roster is None else roster.tasks.get(name.task)

    def look_at_gone(self, call: Call, task: RosterTask) -> None:
        """What members gave is gone with their planes: it is given again by next attempts, and by
        those planes what members gave that have ended, which is on their disk."""
        if call.gone:
            self._desk.begin_anew(call, task, placing.anew(call, task))

    def take(self, node: str, said: Heard) -> bool:
        """Raises RemoteProtocolError."""
        name, roster = said.call, self._desk.roster
        if roster is None or name.era > roster.iteration:
            return False
        if name.era < roster.iteration:
            return True
        task = roster.tasks.get(name.task)
        if task is None:
            raise RemoteProtocolError(f"there is no task {name.task!r:.60}")
        if isinstance(said.message, Left):
            if len(said.message.but) > FAR:
                raise RemoteProtocolError(f"it leaves {len(said.message.but)} calls open")
            self._left[node] = name, said.message
            return True
        now = self._desk.placings.places(task)
        if said.places.version > now.version:
            return False
        places = said.places if said.places.nodes == now.nodes else now
        call, refused = self._desk.calls.get(name), self._desk.calls.refused(name)
        if call is None:
            if (answered := self._is_refused(node, said, task)) is not None:
                return answered
            if said.places.order < places.order:
                return True  # it is yet to hear where all are now
            call = self._desk.begin(name, task, places)
        elif said.places.order > call.places.order:
            if self._is_answered(call, task, node, said):
                return True
            call = self._desk.begin_anew(call, task, places)
        if call is None:  # it can't be begun, or was refused as soon as it was
            return self._desk.calls.refused(name) is not refused and self.take(node, said)
        if said.places.order == call.places.order:
            self._hear(call, node, said)
        elif node in call.peers and not call.meeting.machine.has_failed:
            self.lead(call, node)
        return True

    def refuse(self, node: str, said: CollectiveSaid, size: int) -> bool:
        """Raises RemoteProtocolError."""
        name, places, roster = said.call, said.places, self._desk.roster
        if roster is None or name.era > roster.iteration:
            return False
        task = roster.tasks.get(name.task)
        if name.era < roster.iteration:
            return True
        if task is None:
            raise RemoteProtocolError(f"there is no task {name.task!r:.60}")
        if places.version > self._desk.placings.places(task).version:
            return False
        why = losses.too_long_here(name, node, size, self._desk.peers.longest)
        if self._desk.calls.refused(name) is None:
            call = self._desk.calls.get(name) or self._desk.begin(name, task, places)
            if call is None:
                return False
            call.meeting.abort(NO_ROOM, why)
            self._desk.look(call)
        self._desk.peers.say(node, name, places, Aborted(NO_ROOM, why))
        return True

    def _is_refused(self, node: str, said: Heard, task: RosterTask) -> bool | None:
        """Of a call that is not known, or is known to have been refused: whether what another plane
        says of it is answered, or has to wait. None if the call is to be begun for it."""
        calls, name, message = self._desk.calls, said.call, said.message
        refused = calls.refused(name)
        if refused is None:
            if calls.is_ahead(name, FAR):
                self._refuse(node, said, "PeerLost", losses.too_far(name.task, name.number))
            elif calls.is_full:
                self._refuse(node, said, NO_ROOM, losses.too_many_failed(name.task))
            else:
                return None
        elif said.places.order == refused.places.order:
            self._refuse(node, said, NO_ROOM, refused.why)
        elif said.places.order < refused.places.order:
            if not placing.has_all(message):
                aborted = Aborted(NO_ROOM, refused.why)
                self._desk.peers.say(node, name, refused.places, aborted)
        elif isinstance(message, Announcement) and message.seeks:
            placed = self._desk.placings.placed(task)
            if placed is None:
                return False
            if said.places.nodes == placed.places.nodes:  # else it is yet to hear where all are
                self._desk.peers.say(node, name, said.places, Announcement(placed.me, ()))
        elif isinstance(message, Probe) or (isinstance(message, Announcement) and message.members):
            return None  # it forgot that: others may yet have what came of the call before
        return True

    def lead(self, call: Call, node: str) -> None:
        """To the later places that this plane has begun the call at, if it says nothing there else:
        as it has what came of the call, or none of its members have come."""
        if call.is_over:
            self._desk.peers.say(node, call.name, call.places, Finished())
        elif not call.told.get(node):
            self._desk.tell(call.meeting, call.peers[node], Begun())

    def _is_answered(self, call: Call, task: RosterTask, node: str, said: Heard) -> bool:
        """Who says this has begun the call anew, and this plane need not."""
        if placing.is_hopeless(call):
            self._refuse(node, said, *call.meeting.machine.failure)
        elif placing.goes_without(call, task):
            if call.passed is None or call.passed.order < said.places.order:
                call.passed = said.places
            self._desk.peers.say(node, said.call, said.places, Finished())
        elif not placing.needs_nothing(call, said.message):
            if not placing.is_unrepeatable(call):
                return False
            self._refuse(node, said, "PeerLost", losses.no_more(call))
        return True

    def _hear(self, call: Call, node: str, said: Heard) -> None:
        """Raises RemoteProtocolError."""
        name, machine = said.call, call.meeting.machine
        if node not in call.peers or said.places != call.places:
            self._refuse(node, said, "PeerLost", losses.moved(name.task, name.number))
        elif machine.has_failed and placing.goes_on(call):  # without this plane alone
            if not placing.has_all(said.message):
                out = Announcement(call.me, (), call.own)
                self._desk.peers.say(node, name, call.places, out)
        elif machine.has_failed:  # what it was told may be lost with a plane before
            asks = not isinstance(said.message, Probe) or said.message.asks  # else it compares
            if asks or placing.is_hopeless(call):
                self._refuse(node, said, *machine.failure)
        elif machine.away and all(rank in machine.away for rank in call.ranks_on(node)):
            self._refuse(node, said, "PeerLost", losses.without(name.task, name.number, node))
        elif placing.is_repeated(call, said.message) and (task := self._task(name)):
            new = self._desk.begin_anew(call, task, placing.anew(call, task))
            if new is not None and node in new.peers:
                self.lead(new, node)
        elif node not in call.gone:
            most = self._desk.most_announced
            if self._desk.calls.announce(call, node, OVERHEAD + said.size, most):
                self._desk.lasting.heard(node, call, said.message)
                call.meeting.heard(call.peers[node], said.message)
            else:
                sentence = losses.too_much_said(name.task, node, most)
                call.meeting.abort(NO_ROOM, sentence)
            self._desk.look(call)

    def _refuse(self, node: str, said: Heard, error: str, sentence: str) -> None:
        if not isinstance(said.message, Aborted):
            self._desk.peers.say(node, said.call, said.places, Aborted(error, sentence))
