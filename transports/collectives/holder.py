"""A peer that has the outcome of a call, and gives it to others.

Planes begin a call anew where one of them has lost what it knew, or an instance is elsewhere. What
came of it before is what comes of it: who asks gets it from here, whatever it brings itself. So it
is, too, where a peer is lost when some have the outcome and some have not. This is for outcomes
that are the same for all members: `all_reduce`, `all_gather`, `barrier`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cached_property

from manta.transports.collectives.actions import (
    Action,
    Deliver,
    Fail,
    Outcome,
    Ready,
    Send,
    Tell,
    Why,
)
from manta.transports.collectives.calls import Call, Entry, Placement, difference
from manta.transports.collectives.course import MAX_WANTS
from manta.transports.collectives.messages import (
    Aborted,
    Announcement,
    Done,
    Finished,
    Member,
    Message,
    Wanted,
)
from manta.transports.collectives.plans import Span, Transfer
from manta.transports.errors import RemoteProtocolError


def begun_anew(placement: Placement, lost: Iterable[int]) -> Aborted:
    """What those are told who lose others while they begin a call anew: again."""
    return Aborted(
        "PeerLost", f"It was begun anew, and {placement.named(lost)} was lost meanwhile."
    )


class Holder:
    """On peer `me` of the placement. Takes the place of a `Collective`, and is fed like one."""

    is_closed = True
    has_failed = False
    refusal = Why()
    gives = False
    failure = ("", "")

    def __init__(
        self,
        placement: Placement,
        me: int,
        call: Call,
        done: Done,
        outcome: Outcome,
        entries: Mapping[int, Entry],
    ) -> None:
        """`entries` by rank: what is known of the members."""
        self._placement = placement
        self._me = me
        self.call = call
        self.entries = {rank: entries[rank] for rank in sorted(entries.keys() - done.lost)}
        members = (Member(rank, entry) for rank, entry in self.entries.items())
        self.done = done._replace(members=tuple(members))
        self.outcome = outcome
        self._sends: dict[str, int] = {}
        """By key of a transfer: the peer that wants it."""
        self._wanted = 0

    def tell(self, peer: int) -> list[Action]:
        """That it may be had here."""
        return [
            Tell(peer, Announcement(self._me, (), (), self.done)),
            Tell(peer, Finished()),
        ]

    # What happens.

    def contributed(
        self, rank: int, entry: Entry, data: dict[int, bytes] | None = None, refusal: str = ""
    ) -> list[Action]:
        if rank not in self._placement.ranks[self._me]:
            raise ValueError(f"rank {rank} is not on peer {self._me}")
        # Without whom it went on gets it as all others do, and goes on with them.
        first = self.entries.get(rank, entry)
        if sentence := difference(self._placement.alias, (rank, first), (rank, entry)):
            return [Fail(rank, "CollectiveError", sentence)]
        return [Deliver(rank, self.outcome)]

    def expected(self, rank: int, entry: Entry, lost: Iterable[int]) -> list[Action]:
        return []

    def heard(self, peer: int, message: Message) -> list[Action]:
        """Raises RemoteProtocolError."""
        if isinstance(message, Finished | Aborted):
            return []
        if isinstance(message, Announcement) and message.done is not None:
            return []  # it has it, too
        # It may be another process of the peer than the one that was told before.
        return self._serve(peer, message) if isinstance(message, Wanted) else self.tell(peer)

    def _serve(self, peer: int, message: Wanted) -> list[Action]:
        self._wanted += len(message.wants)
        if self._wanted > MAX_WANTS:
            raise RemoteProtocolError(f"peer {peer} wants {len(message.wants)} transfers")
        actions: list[Action] = []
        for key, span in message.wants:
            buffer, start, stop = span
            if buffer not in self.outcome.buffers:
                continue  # it was wanted before the peer heard that the outcome is here
            if not buffer.start <= start < stop <= buffer.stop:
                raise RemoteProtocolError(f"peer {peer} wants {key!r:.100}")
            if key not in self._sends:
                self._sends[key] = peer
                transfer = Transfer(key, peer, Span(buffer, start, stop))
                actions += [Send(transfer), Ready(key, stop - start)]
        return actions

    def received(self, key: str, upto: int) -> list[Action]:
        return []

    def sent(self, key: str) -> list[Action]:
        return []

    def unsent(self, key: str, sentence: str) -> list[Action]:
        peer = self._sends.get(key)
        return [] if peer is None else [Tell(peer, Aborted("RequestFailed", sentence))]

    def reduced(self, number: int, note: bytes = b"") -> list[Action]:
        return []

    def peer_lost(self, peer: int, why: str = "", ended: Iterable[int] = ()) -> list[Action]:
        return []

    def peer_left(self, peer: int, why: str) -> list[Action]:
        return []

    def member_lost(self, rank: int, why: str, *, has_ended: bool = False) -> list[Action]:
        return []

    def left_out(self) -> list[Action]:
        return []

    def suffice(self, enough: int) -> list[Action]:
        return []

    def abort(self, error: str, sentence: str) -> list[Action]:
        """Who wants what is here may wait for it."""
        if error == "CollectiveError":
            return []
        return [Tell(peer, Aborted(error, sentence)) for peer in sorted({*self._sends.values()})]

    # What is known.

    @cached_property
    def weight(self) -> int:
        return sum(entry.weight for entry in self.entries.values())

    @property
    def come(self) -> Collection[int]:
        return range(self._placement.size)

    @property
    def away(self) -> dict[int, str]:
        return {}

    def has_value(self, rank: int) -> bool:
        return rank not in self.outcome.lost

    def has_delivered(self, rank: int) -> bool:
        return rank in self._placement.ranks[self._me]

    @property
    def has_served(self) -> bool:
        return True

    def counts_on(self, peer: int) -> bool:
        return False

    def waits_for(self) -> str:
        return ""

    def holder(self, placement: Placement, me: int) -> Holder:
        return Holder(placement, me, self.call, self.done, self.outcome, self.entries)
