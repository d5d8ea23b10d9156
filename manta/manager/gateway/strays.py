"""Nodes that ask about swarms of which they run nothing.

One that has yet to hear of a swarm's end does so for a moment. Of one that goes on, refusals come
at a rate: who waits for them asks no faster, and who does not may have so many unanswered on its
link. Beyond that the link is cut. What it asks about swarms that it runs is answered as ever.
"""

from __future__ import annotations

from typing import Any

import msgspec

from manta.actors import Actor, Refused, Reply
from manta.actors.remote import ASKS_PER_LINK
from manta.manager.auth.principals import Kind, Principal
from manta.manager.quotas.rate import Rate
from manta.protocol.codes import Code
from manta.transports.interface import Link

REFUSALS = Rate(10.0, 1000.0)
"""Of one node."""
TOLD_EVERY = 60.0
"""Seconds between two lines of the log about one node."""


class _Stray(msgspec.Struct):
    due: float
    """As of `Rate`."""
    told_at: float
    late: int = 0
    """Refusals since then that came late."""


class _Came(msgspec.Struct, frozen=True):
    """An actor refused what it was asked for a node."""

    who: Principal
    link: Link | None
    reply: Reply
    refusal: Refused


class _Due(msgspec.Struct, frozen=True):
    reply: Reply
    refusal: Refused


class Strays:
    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._of: dict[str, _Stray] = {}
        """By node: of those that may not be refused as many at once as others."""

    def handle(self, message: object) -> bool:
        match message:
            case _Came(who, link, reply, refusal):
                self.refuse(who, link, reply, refusal)
            case _Due(reply, refusal):
                reply.fail(refusal)
            case _:
                return False
        return True

    def watched(self, who: Principal, link: Link | None, reply: Reply) -> Reply:
        """A reply in the place of that to the node, for whichever actor answers it."""
        return _Watched(self._actor, who, link, reply)

    def refuse(self, who: Principal, link: Link | None, reply: Reply, refusal: Refused) -> None:
        """Now, or when it is due."""
        now = self._actor.clock.now()
        stray = self._of.get(who.id) or _Stray(now, now - TOLD_EVERY)
        delay = REFUSALS.begin(stray.due, now) - now
        if delay * REFUSALS.a_second >= ASKS_PER_LINK:
            if link is not None:
                link.close()
            reply.fail(refusal)
            return
        stray.due = REFUSALS.after(stray.due, 1, now)
        self._of = {id_: one for id_, one in self._of.items() if one.due > now}
        self._of[who.id] = stray
        if not delay:
            reply.fail(refusal)
            return
        stray.late += 1
        if now >= stray.told_at + TOLD_EVERY:
            self._actor.log.warning(
                "node %s asks again and again about swarms of which it runs nothing; it is refused "
                "%g times a second at most, which has delayed %d refusals since this was told",
                *(who.id, REFUSALS.a_second, stray.late),
            )
            stray.told_at, stray.late = now, 0
        self._actor.after(delay, _Due(reply, refusal))


def is_stray(who: Principal, refusal: Refused) -> bool:
    """Whether a node is told that it runs nothing of what it asks about."""
    return refusal.code == Code.UNKNOWN_SWARM and who.kind is Kind.NODE


class _Watched(Reply):
    """Passes the answer on; a stray's refusal by way of the gateway."""

    __slots__ = ("_actor", "_link", "_reply", "_who")

    def __init__(self, actor: Actor, who: Principal, link: Link | None, reply: Reply) -> None:
        super().__init__()
        self._actor = actor
        self._who = who
        self._link = link
        self._reply = reply

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        if error is None:
            self._reply.set(value)
        elif isinstance(error, Refused) and is_stray(self._who, error):
            came = _Came(self._who, self._link, self._reply, error)
            if not self._actor.notify(self._actor.ref, came):
                self._reply.fail(error)
        else:
            self._reply.fail(error)
