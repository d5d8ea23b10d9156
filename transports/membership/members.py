"""The other peers that one peer knows, living and dead, and what of that can be compared.

A view is divided by key into buckets, and each has a digest of who lives in it: so two peers find
what is different between them with few bytes, however many they know (anti-entropy, Demers et al.
1987). The dead are remembered for a while, so that late news of their life does not bring them
back, and so that they can be asked whether they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from zlib import crc32

from manta.transports.membership.lifeguard import Suspicion
from manta.transports.membership.messages import BUCKETS, Alive, Claim, Dead, Left
from manta.transports.membership.view import View

MOST = 4_096
"""Peers of a mesh, this one too."""
MOST_GONE = 1_024
MEMORY = 3_600.0
"""Seconds for which the dead are remembered; and fewer if they are too many."""


class State(Enum):
    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


@dataclass(eq=False, slots=True)
class Member:
    peer: Alive
    state: State = State.ALIVE
    suspicion: Suspicion | None = None
    heard: float = -math.inf
    """When it itself said anything, last."""
    checked: float = -math.inf
    """When it was last asked because of what others say."""
    is_closed: bool = False
    """Did its link end here, and not come up again?"""
    former: int | None = None
    """The session before this one: late news of it counts for nothing."""
    gone_at: float = 0.0

    @property
    def is_gone(self) -> bool:
        return self.state in (State.DEAD, State.LEFT)


@dataclass
class Members:
    me: Alive
    is_entered: bool = False
    """Whether this peer is in the mesh itself."""
    version: int = 0
    digests: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    _by_key: dict[str, Member] = field(default_factory=dict)
    _buckets: list[dict[str, Member]] = field(default_factory=lambda: [{} for _ in range(BUCKETS)])
    _gone: dict[str, Member] = field(default_factory=dict)
    """Those first that went first."""
    _view: View | None = None

    def get(self, key: str) -> Member | None:
        return self._by_key.get(key)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_key.values())

    @property
    def living(self) -> int:
        """Others that are in the mesh."""
        return len(self._by_key) - len(self._gone)

    @property
    def gone(self) -> list[Member]:
        return list(self._gone.values())

    @property
    def view(self) -> View:
        if self._view is None or self._view.version != self.version:
            peers = [member.peer for member in self if not member.is_gone]
            self._view = View.of(self.version, [*peers, *([self.me] if self.is_entered else [])])
        return self._view

    # --- what changes -----------------------------------------------------------------------

    def announce(self, me: Alive) -> None:
        """This peer is in the mesh, as that."""
        if self.is_entered:
            self._count(self.me)
        self.me, self.is_entered = me, True
        self._count(me)
        self.version += 1

    def add(self, peer: Alive) -> Member:
        member = self._by_key[peer.key] = Member(peer)
        self._buckets[bucket_of(peer.key)][peer.key] = member
        self._count(peer)
        self.version += 1
        return member

    def renew(self, member: Member, peer: Alive) -> None:
        """It announced itself anew; that it lives is said by that."""
        if member.is_gone:
            del self._gone[peer.key]
        else:
            self._count(member.peer)
        self._count(peer)
        if member.peer.session != peer.session:
            member.former = member.peer.session
        member.peer, member.state, member.suspicion = peer, State.ALIVE, None
        self.version += 1

    def bury(self, member: Member, state: State, now: float) -> None:
        self._count(member.peer)
        member.state, member.suspicion, member.gone_at = state, None, now
        self._gone[member.peer.key] = member
        self.version += 1
        if len(self._gone) > MOST_GONE:
            self._forget(next(iter(self._gone)))

    def forget(self, now: float) -> None:
        """Those that went long ago."""
        for key, member in list(self._gone.items()):
            if now < member.gone_at + MEMORY:
                break
            self._forget(key)

    def _forget(self, key: str) -> None:
        del self._gone[key], self._by_key[key], self._buckets[bucket_of(key)][key]

    # --- what is compared -------------------------------------------------------------------

    def _count(self, peer: Alive) -> None:
        """Into the digest of its bucket, or out of it."""
        said = f"{peer.key} {peer.session} {peer.incarnation}"
        self.digests[bucket_of(peer.key)] ^= crc32(said.encode())

    def claims(self, bucket: int) -> list[Claim]:
        """What is known of all in a bucket."""
        found = [self.claim(member) for member in self._buckets[bucket].values()]
        if self.is_entered and bucket_of(self.me.key) == bucket:
            found.append(self.me)
        return found

    def claim(self, member: Member) -> Claim:
        if not member.is_gone:
            return member.peer
        key, session, incarnation = member.peer.key, member.peer.session, member.peer.incarnation
        if member.state is State.LEFT:
            return Left(key, session, incarnation)
        return Dead(key, session, incarnation, self.me.key)


def bucket_of(key: str) -> int:
    return crc32(key.encode()) % BUCKETS
