"""How two peers come to know the same: they compare digests, and tell each other what differs.

One asks (`Compare`), bucket by bucket; the other answers with a page of what it knows (`Records`)
in the first buckets that differ, and so on until all were compared. What the other lacked of a page
it is told at once. A peer joins so: it knows nothing, and is told all. Where all whom it reaches
are joining as well, the one with the lowest key is the first in the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manta.transports.membership.context import Context
from manta.transports.membership.members import MOST
from manta.transports.membership.messages import (
    BUCKETS,
    PAGE,
    Alive,
    Claim,
    Compare,
    Records,
)
from manta.transports.membership.pace import COMPARE

PATIENCE = 2.0
"""Periods in which a page is to come."""


class Comparing:
    def __init__(self, context: Context, entered: Callable[[str], None]) -> None:
        """`entered` is told once that this peer knows the mesh, and of whom, or "" if it is the
        first."""
        self._context = context
        self._entered = entered
        self._number = 0
        """Of the page that is to come."""
        self._peer = ""
        """From whom; "" if none is."""
        self._until = 0.0
        self.linked: dict[str, None] = {}
        """Through whom this peer may join."""
        self._joining: set[str] = set()
        """Those that join themselves, as they say."""

    # --- this peer asks ---------------------------------------------------------------------

    def begin(self, peer: str) -> None:
        """Compares views with a peer, unless it does so with some already."""
        if self._context.now >= self._until:
            self._ask(peer, 0)

    def _ask(self, peer: str, at: int) -> None:
        context = self._context
        self._peer, self._number = peer, context.number() or context.number()
        self._until = context.now + PATIENCE * context.pace.period
        digests = tuple(context.members.digests[at:])
        context.reply(peer, Compare(self._number, at, digests))

    def later(self) -> None:
        """Compares views with some peer now and then."""
        context = self._context
        wait = COMPARE * context.pace.period * context.random.uniform(0.5, 1.5)
        context.timers.at(context.now + wait, self._now)

    def _now(self, _: None) -> None:
        for peer in self._context.order.some(1):
            self.begin(peer)
        self.later()

    def join(self, _: None = None) -> None:
        """Asks those that are linked, one after another, until this peer is in the mesh."""
        context = self._context
        if context.members.is_entered:
            return
        if self._joining and min(self._joining) > context.me.key and not self._peer:
            self._entered("")
            return
        self._joining.clear()
        context.timers.at(context.now + PATIENCE * context.pace.period, self.join)
        if self.linked:
            peer = next(iter(self.linked))
            del self.linked[peer]
            self.linked[peer] = None  # its next turn is after all others'
            self.begin(peer)

    # --- messages ---------------------------------------------------------------------------

    def asked(self, sender: str, compare: Compare) -> None:
        context = self._context
        members = context.members
        buckets: list[int] = []
        found: list[Claim] = []
        upto = compare.at
        for bucket, theirs in enumerate(compare.digests[: BUCKETS - compare.at], compare.at):
            if theirs != members.digests[bucket]:
                claims = members.claims(bucket)
                if found and len(found) + len(claims) > PAGE:
                    break
                buckets.append(bucket)
                found += context.random.sample(claims, min(len(claims), PAGE))
            upto = bucket + 1
        news = tuple(found)
        is_member = members.is_entered
        context.reply(sender, Records(compare.number, upto, tuple(buckets), news, is_member))

    def told(self, sender: str, records: Records) -> None:
        """Its news has been heard already."""
        context = self._context
        if not records.number or records.number != self._number or sender != self._peer:
            return
        self._peer, self._until = "", context.now
        is_entered = context.members.is_entered
        if not is_entered and not records.is_member:
            self._joining.add(sender)
            return
        if is_entered:
            self._tell_lacking(sender, records)
        if max(records.buckets, default=-1) < records.upto < BUCKETS:
            self._ask(sender, records.upto)
        elif not is_entered:
            self._entered(sender)

    def _tell_lacking(self, peer: str, records: Records) -> None:
        known = {claim.key: claim for claim in records.news}
        members = self._context.members
        buckets = {bucket for bucket in records.buckets if 0 <= bucket < BUCKETS}
        mine = [claim for bucket in sorted(buckets) for claim in members.claims(bucket)]
        lacking = [claim for claim in mine if _is_news(claim, known.get(claim.key))]
        for at in range(0, min(len(lacking), MOST), PAGE):
            page: Sequence[Claim] = lacking[at : at + PAGE]
            self._context.reply(peer, Records(0, BUCKETS, (), tuple(page)))


def _is_news(claim: Claim, theirs: Claim | None) -> bool:
    if theirs is None or claim.session != theirs.session:
        return True
    is_other = isinstance(claim, Alive) != isinstance(theirs, Alive)
    return claim.incarnation > theirs.incarnation or (
        is_other and claim.incarnation == theirs.incarnation
    )
