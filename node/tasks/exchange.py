"""How a task exchanges values with other instances of its swarm.

What it sends goes into the journal, like a result. What it waits for is asked of the manager by
long polls, until it is there or the task's timeout has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

import msgspec

from manta.actors import Actor
from manta.node.task_server import requests as light
from manta.protocol import exchange
from manta.protocol.exchange import Contribution, Exchanged, ExchangeRead
from manta.protocol.node import Instance, JournalEntry
from manta.protocol.values import Inline, Payload

POLL = 20.0
"""The longest that one long poll waits, in seconds."""
FIRST = 256, 1 << 20
"""Broadcasts, contributions and checkpoints of an attempt, and their bytes, before it asks for
room."""
PATIENCE = 300.0
"""Seconds for which those wait for room."""

Exchange = (
    light.Broadcast
    | light.GetBroadcast
    | light.Send
    | light.ResolveNode
    | light.Receive
    | light.ReturnClaims
    | light.Contribute
    | light.Collect
    | light.Lock
    | light.Unlock
    | light.ListPeers
    | light.Checkpoint
    | light.Restore
)
Then = Callable[[Any], None]


class _Room:
    """How much an attempt may send to a node before it asks the manager again."""

    def __init__(self, letters: int, size: int) -> None:
        self.letters = letters
        self.size = size

    def take(self, size: int) -> bool:
        """Whether there is room for a letter with a value of this size, which is then taken."""
        fits = self.letters > 0 and size <= self.size
        if fits:
            self.letters -= 1
            self.size -= size
        return fits


class _Poll:
    """A wait of a task, and the reply to the polls that serve it."""

    def __init__(self, request: light.Request, timeout: float, deadline: float) -> None:
        self.request = request
        self.timeout = timeout
        self.deadline = deadline
        self.answered_by = 0.0
        """When the manager answers the poll under way, at the latest."""

    def fail(self, kind: str, sentence: str) -> None:
        self.request.reply.fail(kind, sentence)


class TaskExchange:
    """`keep` journals an entry and answers the request, `read` asks the manager, `give` and
    `give_all` fetch what values need and answer, `has_rooms` says whether the manager bounds what
    is said."""

    def __init__(
        self,
        actor: Actor,
        keep: Callable[[light.Request, JournalEntry], bool],
        read: Callable[[light.Request, Any, Then], None],
        give: Callable[[light.Request, Payload | None], None],
        give_all: Callable[[light.Request, tuple[Contribution, ...]], None],
        has_rooms: Callable[[], bool],
    ) -> None:
        self._actor = actor
        self._keep = keep
        self._read = read
        self._give = give
        self._give_all = give_all
        self._has_rooms = has_rooms
        self._peers: dict[tuple[Instance, str], str] = {}
        """Ids of the nodes that this attempt may talk to, by the names that it used."""
        self._claims: dict[tuple[Instance, str, str], int] = {}
        """How many messages it has claimed, by node and tag."""
        self._rooms: dict[tuple[Instance, str], _Room] = {}
        """By node, "" for what is said to all; none where the manager sets no bound."""
        self._polls: dict[ExchangeRead, _Poll] = {}

    def attempt_ended(self) -> None:
        self._peers.clear()
        self._claims.clear()
        self._rooms.clear()
        self._polls.clear()

    def serve(self, request: light.Request, body: Exchange) -> None:
        at, reply = request.instance, request.reply
        match body:
            case light.Send(to):
                self._with_peer(request, to, lambda id_: self._send(request, id_))
            case light.Broadcast() | light.Contribute() | light.Checkpoint():
                self._send(request, "")
            case light.Unlock(name):
                self._polls.pop(exchange.ReadLock(at, name), None)
                self._say(request, exchange.LockReleased(at, name))
            case light.GetBroadcast(tag, timeout):
                self._wait(request, exchange.ReadBroadcast(at, tag), timeout, self._give_one)
            case light.ResolveNode(name):
                self._with_peer(request, name, reply.set)
            case light.Receive():
                self._with_peer(request, body.source, lambda _: self._receive(request, body))
            case light.ReturnClaims(source, tag, received):
                self._say(request, exchange.ClaimsReturned(at, source, tag, received))
            case light.Lock(name, timeout):
                if self._keep(request, exchange.LockWanted(at, name)):
                    self._wait(
                        request, exchange.ReadLock(at, name), timeout, lambda *_: reply.set(None)
                    )
            case light.Collect():
                self._collect(request, body)
            case light.ListPeers():
                self._read_at_once(request, exchange.ReadPeers(at), partial(_peers, reply))
            case light.Restore():
                self._read_at_once(
                    request,
                    exchange.ReadCheckpoint(at),
                    lambda found: self._give(request, found.value),
                )
            case _:
                assert_never(body)

    def _say(self, request: light.Request, entry: JournalEntry) -> None:
        if self._keep(request, entry):
            request.reply.set(None)

    def _read_at_once(self, request: light.Request, question: Any, then: Then) -> None:
        """Whatever an attempt that has ended asks, the manager answers with an Exchanged."""

        def answered(found: Any) -> None:
            if isinstance(found, Exchanged):
                request.reply.fail(found.error, found.sentence)
            else:
                then(found)

        self._read(request, question, answered)

    def _with_peer(self, request: light.Request, name: str, then: Callable[[str], None]) -> None:
        key = (request.instance, name)
        if key in self._peers:
            then(self._peers[key])
            return

        def found(peer: exchange.ResolvedPeer) -> None:
            self._peers[key] = self._peers[request.instance, peer.node_id] = peer.node_id
            if peer.letters is not None:
                self._rooms[request.instance, peer.node_id] = _Room(peer.letters, peer.size)
            then(peer.node_id)

        self._read(request, exchange.ResolvePeer(request.instance, name), found)

    def _send(self, request: light.Request, to: str) -> None:
        """As soon as there is room: to a node, or to all."""
        at, entry = request.instance, _said(request, to)
        size = len(entry.value.data) if isinstance(entry.value, Inline) else 0
        room = self._rooms.get((at, to))
        if room is None and not to and self._has_rooms():
            room = self._rooms[at, to] = _Room(*FIRST)
        if room is None or room.take(size):
            self._say(request, entry)
            return

        def has_room(request: light.Request, found: Exchanged) -> None:
            self._rooms[at, to] = _Room(found.letters, found.size)
            if to and request.reply.abandoned:  # a signal that ends the wait ends the sending
                request.reply.set(None)
            else:
                self._send(request, to)

        read, timeout = exchange.ReadRoom(at, to, size), getattr(request.body, "timeout", PATIENCE)
        late = "ReceiverFull" if to else "Timeout"
        self._wait(request, read, timeout, has_room, late=late)

    def _receive(self, request: light.Request, body: light.Receive) -> None:
        """A claim stands until the task has received its message; asking again repeats it."""
        at, source, tag = request.instance, body.source, body.tag
        claimed = self._claims.get((at, source, tag), 0)
        if body.number > claimed:
            sentence = f"Message {body.number} of {tag!r} was asked for before {claimed}."
            request.reply.fail("RequestFailed", sentence)
            return
        if body.number == claimed:
            if not self._keep(request, exchange.Receiving(at, source, tag)):
                return
            self._claims[at, source, tag] = claimed + 1
        read = exchange.ReadMessage(at, source, tag, body.number)
        self._wait(request, read, body.timeout, self._give_one)

    def _collect(self, request: light.Request, body: light.Collect) -> None:
        at = request.instance
        read = exchange.ReadContributions(
            at, body.number, body.kind, body.ranks, body.enough, on_loss=body.on_loss
        )

        def give(request: light.Request, found: Exchanged) -> None:
            self._give_all(request, found.values)

        last = None
        if body.partial:
            last = msgspec.structs.replace(read, partial=True)
        self._wait(request, read, body.timeout, give, last)

    def _give_one(self, request: light.Request, found: Exchanged) -> None:
        self._give(request, found.values[0].value)

    def _wait(
        self,
        request: light.Request,
        read: ExchangeRead,
        timeout: float,
        then: Callable[[light.Request, Exchanged], None],
        last: ExchangeRead | None = None,
        late: str = "Timeout",
    ) -> None:
        """Poll until it is ready or can never be; after the timeout ask `last`, if given, or fail
        as `late` says."""
        now = self._actor.clock.now()
        poll = self._polls.get(read)
        if poll and poll.request.reply.abandoned and now + timeout >= poll.answered_by:
            # A signal took the task out of this very wait: who loops under an alarm asks often.
            left, poll.request = poll.request, request
            poll.timeout, poll.deadline = timeout, now + timeout
            left.reply.set(None)
            return
        poll = self._polls[read] = _Poll(request, timeout, now + timeout)

        def ask(seconds: float) -> None:
            wait = min(seconds, POLL)
            poll.answered_by = self._actor.clock.now() + wait
            asked = msgspec.structs.replace(poll.request, reply=poll)
            self._read(asked, msgspec.structs.replace(read, wait=wait), answered)

        def answered(found: Exchanged) -> None:
            request, left = poll.request, poll.deadline - self._actor.clock.now()
            if not (found.ready or found.error) and left > 0 and not request.reply.abandoned:
                ask(left)
                return
            if self._polls.get(read) is poll:
                del self._polls[read]
            if found.ready:
                then(request, found)
            elif found.error:
                request.reply.fail(found.error, found.sentence)
            elif last is not None:
                self._read(request, last, lambda found: then(request, found))
            else:
                sentence = f"Waited {poll.timeout:g} s in vain: {found.sentence.rstrip('.')}."
                request.reply.fail(late, sentence)

        ask(timeout)


def _said(
    request: light.Request, to: str
) -> exchange.Sent | exchange.Broadcasted | exchange.Contributed | exchange.Checkpointed:
    at = request.instance
    match request.body:
        case light.Send(_, tag, value):
            return exchange.Sent(at, to, tag, value)
        case light.Broadcast(tag, value):
            return exchange.Broadcasted(at, tag, value)
        case light.Contribute(number, kind, rank, part):
            return exchange.Contributed(at, number, kind, part, rank)
        case light.Checkpoint(value):
            return exchange.Checkpointed(at, value)
    raise TypeError(f"{request.body} is said to nobody")


def _peers(reply: light.Reply, found: Any) -> None:
    reply.set([[peer.rank, peer.node_id, peer.node_alias, peer.share] for peer in found.peers])
