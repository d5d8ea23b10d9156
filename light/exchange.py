"""What the instances of a swarm say to each other: a part of `World`.

Values are whatever results may be. The default timeout is the task's own, else 300 s. A wait
that cannot end raises and names who was waited for: PeerLost when an instance failed, finished
without the call or lost its node, NothingSent when nobody is left who could send, Timeout or
SwarmStopped.
"""

from __future__ import annotations

import time
from _thread import TIMEOUT_MAX, RLock
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from manta.light import arguments
from manta.light.collectives.world import Collectives
from manta.light.collectives.world import waiting_time as _timeout
from manta.light.context import MISSING, Context, current
from manta.light.errors import RequestFailed, Timeout


class Peer(str):
    """An instance of this task in this iteration: the id of its node, and what else is known.

    It can stand wherever a node's id can, and equals `world.node_id` there. `share` is its part
    of the work by measured speed. Two instances on one node are equal; `rank` tells them apart.
    """

    __slots__ = ("node_alias", "node_id", "rank", "share")

    rank: int
    node_id: str
    node_alias: str
    share: float

    def __new__(cls, rank: int, node_id: str, node_alias: str, share: float) -> Peer:
        peer = super().__new__(cls, node_id)
        peer.rank, peer.node_id, peer.node_alias, peer.share = rank, node_id, node_alias, share
        return peer

    def __getnewargs__(self) -> tuple[int, str, str, float]:  # type: ignore[override]
        return self.rank, self.node_id, self.node_alias, self.share

    def __repr__(self) -> str:
        return (
            f"Peer(rank={self.rank}, node_id={self.node_id!r}, "
            f"node_alias={self.node_alias!r}, share={self.share})"
        )


class Exchange(Collectives):
    """Broadcasts, messages and collectives."""

    # One to all, one to one.

    def broadcast(self, tag: str, value: Any) -> None:
        """Gives a value to all instances of this iteration; the latest under a tag counts.

        Returns at once. In a network it reaches neighbors only.
        """
        context = current()
        request = "say_to_all" if context.brief.direct else "broadcast"
        context.call(request, tag=arguments.tag(tag), value=value)

    def get_broadcast(self, tag: str, timeout: float | None = None) -> Any:
        """Waits for a value under a tag in this iteration and returns the latest.

        Raises Timeout after `timeout` seconds, NothingSent when nobody is left who could send.
        """
        context = current()
        request = "hear_broadcast" if context.brief.direct else "get_broadcast"
        return context.call(request, tag=arguments.tag(tag), timeout=_timeout(timeout))

    def send_to_node(self, node: str, tag: str, value: Any, timeout: float | None = None) -> None:
        """Sends a value to a node, by its id or alias.

        Messages of one sender and tag arrive in order, and none is lost: what nobody received
        waits for the next iteration. Returns at once, unless so many messages to that node are
        unread that it has to wait until some were received.
        Raises UnknownPeer, and ReceiverFull, a Timeout, with which the message was not sent.
        """
        left = _timeout(timeout)
        name, tag = arguments.node(node), arguments.tag(tag)
        context = current()
        if context.brief.direct:
            to = _node_id(context, name)
            context.call("send_letter", to=to, tag=tag, value=value, timeout=left)
        else:
            context.call("send", to=name, tag=tag, value=value, timeout=left)

    def receive_from_node(self, node: str, tag: str, timeout: float | None = None) -> Any:
        """Waits for the next value that the node sent here under the tag.

        Each goes to one instance. A call that a signal cuts short takes none: the next call
        returns the same message. Raises UnknownPeer, Timeout, and PeerLost when nothing that could
        send is left on that node.
        """
        name, tag, left = arguments.node(node), arguments.tag(tag), _timeout(timeout)
        context = current()
        brief = context.brief
        received, receiving = brief.received, brief.receiving
        source = _node_id(context, name)
        request = "receive_letter" if brief.direct else "receive"
        place = source, tag
        received.setdefault(place, 0)
        until = time.monotonic() + left
        while True:
            number = received[place]
            receiving[place] = True
            value = context.call(request, source=source, tag=tag, number=number, timeout=left)
            # No call and no jump from here to `return`, so that neither a signal nor another
            # thread comes between: a message counts as received exactly when it is given out.
            if received[place] == number:
                received[place] = number + 1
                receiving[place] = False
                return value
            left = max(0.001, until - time.monotonic())  # another thread has received that one

    @contextmanager
    def lock(self, name: str, timeout: float | None = None) -> Iterator[None]:
        """`with world.lock("name"):` runs in one instance of the swarm at a time.

        First come, first served, among the threads of one instance as well. The end of the attempt
        releases it too. Raises Timeout, naming who holds it, and RequestFailed inside the same
        lock.
        """
        name = arguments.name("lock's name", name)
        patience = _timeout(timeout)
        mine: Any = current().brief.locks.setdefault(name, RLock())
        if mine._is_owned():
            raise RequestFailed(
                f"This attempt holds the lock {name!r} already: it would wait for itself forever."
            )
        left = patience
        try:
            if not mine.acquire(blocking=False):
                began = time.monotonic()
                if not mine.acquire(timeout=min(patience, TIMEOUT_MAX)):
                    raise Timeout(
                        f"Waited {patience:g} s in vain: the lock {name!r} is held by another "
                        f"thread of {current().brief.name}."
                    )
                left = max(0.001, patience - (time.monotonic() - began))
            current().call("lock", name=name, timeout=left)
            yield
        finally:  # who gave up waiting, or was taken out by a signal, must leave the queue too
            if mine._is_owned():
                try:
                    current().call("unlock", name=name)
                finally:
                    mine.release()

    # Who is there.

    @property
    def peers(self) -> list[Peer]:
        """This task's instances in this iteration, by rank, this one among them."""
        return [Peer(*peer) for peer in current().call("list_peers")]

    @property
    def share(self) -> float:
        """This instance's part of the work, by how fast each was in the iteration before.

        The shares of a task's instances add up to 1. In the first iteration they are equal.
        """
        return next(peer.share for peer in self.peers if peer.rank == self.rank)

    # What the next attempt of this instance finds.

    def checkpoint(self, state: Any) -> None:
        """Keeps a state, so that the next attempt can go on from it should this one fail."""
        current().call("checkpoint", value=state)

    def restore(self) -> Any:
        """This instance's last checkpoint in this iteration, whichever attempt made it, or None."""
        state = current().call("restore")
        return None if state is MISSING else state


def _node_id(context: Context, name: str) -> str:
    """Of the node with this id or alias. Raises UnknownPeer."""
    ids = context.brief.node_ids
    if name not in ids:
        found = context.call("find_node", name=name) if context.brief.direct else None
        # Of nodes that have no part in the swarm yet only the manager knows.
        ids[name] = found or context.call("resolve_node", name=name)
    return ids[name]
