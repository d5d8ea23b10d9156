"""What a task says to other instances of its swarm, and how it waits for them.

What it says goes into the journal, as a result does; what it waits for is asked of the
manager by long poll, again and again until the task's patience ends.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, assert_never

import msgspec

from manta.actors import Actor
from manta.node import session as light
from manta.protocol import exchange
from manta.protocol.exchange import Contribution, Exchanged, ExchangeRead
from manta.protocol.node import Instance, JournalEntry
from manta.protocol.values import Payload

POLL = 20.0
"""Seconds that one long poll waits at most."""

Exchange = (
    light.Broadcast
    | light.GetBroadcast
    | light.Send
    | light.Receive
    | light.Contribute
    | light.Collect
    | light.Lock
    | light.Unlock
    | light.ListPeers
    | light.Checkpoint
    | light.Restore
)
Then = Callable[[Any], None]


class _Claims:
    """Of one instance to messages of one sender and tag, numbered in the order they were made."""

    def __init__(self) -> None:
        self.count = 0
        self.unserved: list[int] = []
        """A heap of those that nobody waits for any more: whoever receives next takes the first."""


class _Claim:
    """The reply of who receives a message; without one, its claim is the next one's."""

    def __init__(self, reply: Any, claims: _Claims, number: int) -> None:
        self._reply = reply
        self._claims = claims
        self._number = number

    def set(self, value: Any = None) -> None:
        self._reply.set(value)

    def fail(self, kind: str, sentence: str) -> None:
        heapq.heappush(self._claims.unserved, self._number)
        self._reply.fail(kind, sentence)


class TaskExchange:
    """`keep` journals an entry and answers the request, `read` asks the manager, `give` and
    `give_all` fetch what values need and answer."""

    def __init__(
        self,
        actor: Actor,
        keep: Callable[[light.Request, JournalEntry], bool],
        read: Callable[[light.Request, Any, Then], None],
        give: Callable[[light.Request, Payload | None], None],
        give_all: Callable[[light.Request, tuple[Contribution, ...]], None],
    ) -> None:
        self._actor = actor
        self._keep = keep
        self._read = read
        self._give = give
        self._give_all = give_all
        self._peers: dict[tuple[Instance, str], str] = {}
        """Ids of the nodes that this attempt may talk to, by the names that it used."""
        self._claims: dict[tuple[Instance, str, str], _Claims] = {}
        """By node and tag."""

    def round_ended(self) -> None:
        self._peers.clear()
        self._claims.clear()

    def serve(self, request: light.Request, body: Exchange) -> None:
        at, reply = request.instance, request.reply
        match body:
            case light.Broadcast(tag, value):
                self._say(request, exchange.Broadcasted(at, tag, value))
            case light.Send(to, tag, value):
                self._with_peer(
                    request, to, lambda id_: self._say(request, exchange.Sent(at, id_, tag, value))
                )
            case light.Contribute(number, kind, to_rank, part):
                self._say(request, exchange.Contributed(at, number, kind, part, to_rank))
            case light.Unlock(name):
                self._say(request, exchange.LockReleased(at, name))
            case light.Checkpoint(value):
                self._say(request, exchange.Checkpointed(at, value))
            case light.GetBroadcast(tag, timeout):
                self._wait(request, exchange.ReadBroadcast(at, tag), timeout, self._give_one)
            case light.Receive(source, tag, timeout):
                self._with_peer(
                    request, source, lambda id_: self._receive(request, id_, tag, timeout)
                )
            case light.Lock(name, timeout):
                if self._keep(request, exchange.LockWanted(at, name)):
                    self._wait(
                        request, exchange.ReadLock(at, name), timeout, lambda *_: reply.set(None)
                    )
            case light.Collect():
                self._collect(request, body)
            case light.ListPeers():
                self._read(request, exchange.ReadPeers(at), lambda found: _peers(request, found))
            case light.Restore():
                self._read(
                    request,
                    exchange.ReadCheckpoint(at),
                    lambda found: _unless_over(
                        request, found, lambda: self._give(request, found.value)
                    ),
                )
            case _:
                assert_never(body)

    def _say(self, request: light.Request, entry: JournalEntry) -> None:
        if self._keep(request, entry):
            request.reply.set(None)

    def _with_peer(self, request: light.Request, name: str, then: Callable[[str], None]) -> None:
        key = (request.instance, name)
        if key in self._peers:
            then(self._peers[key])
            return

        def found(peer: exchange.Peer) -> None:
            self._peers[key] = peer.node_id
            then(peer.node_id)

        self._read(request, exchange.ResolvePeer(request.instance, name), found)

    def _receive(self, request: light.Request, source: str, tag: str, timeout: float) -> None:
        """A claim that was made and not served, because the task lost patience, stands."""
        at = request.instance
        claims = self._claims.setdefault((at, source, tag), _Claims())
        if claims.unserved:
            number = heapq.heappop(claims.unserved)
        elif self._keep(request, exchange.Receiving(at, source, tag)):
            number = claims.count
            claims.count += 1
        else:
            return
        request = msgspec.structs.replace(request, reply=_Claim(request.reply, claims, number))
        read = exchange.ReadMessage(at, source, tag, number)
        self._wait(request, read, timeout, self._give_one)

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
    ) -> None:
        """Poll until it is ready or can never be; when the time is over, ask `last` if given."""
        deadline = self._actor.clock.now() + timeout

        def answered(found: Exchanged) -> None:
            left = deadline - self._actor.clock.now()
            if found.ready:
                then(request, found)
            elif found.error:
                request.reply.fail(found.error, found.sentence)
            elif left > 0:
                self._read(request, msgspec.structs.replace(read, wait=min(left, POLL)), answered)
            elif last is not None:
                self._read(request, last, lambda found: then(request, found))
            else:
                sentence = f"Waited {timeout:g} s in vain: {found.sentence.rstrip('.')}."
                request.reply.fail("Timeout", sentence)

        self._read(request, msgspec.structs.replace(read, wait=min(timeout, POLL)), answered)


def _peers(request: light.Request, found: Any) -> None:
    _unless_over(
        request,
        found,
        lambda: request.reply.set(
            [[peer.rank, peer.node_id, peer.node_alias, peer.share] for peer in found.peers]
        ),
    )


def _unless_over(request: light.Request, found: Any, then: Callable[[], None]) -> None:
    """The manager tells an attempt that was ended so, whatever it asked."""
    if isinstance(found, Exchanged):
        request.reply.fail(found.error, found.sentence)
    else:
        then()
