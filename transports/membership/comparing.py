"""How two peers come to know the same: they compare digests, and tell each other what differs.

One asks (`Compare`), bucket by bucket; the other answers with a page of what it knows (`Records`)
in the first buckets that differ, and so on until all were compared. What the other lacked of a page
it is told at once.

A peer joins so: it pings whoever is linked, and is told all by the first that is in the mesh. Where
all of them answer that they are joining as well, the one with the lowest key is the first in it.
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
    Ping,
    Records,
)
from manta.transports.membership.pace import COMPARE

PATIENCE = 2.0
"""Periods in which a page is to come, and of a round of joining."""
ROUNDS = 2
"""Of joining, in which all others say that they join, and this peer is to be the first."""
MOST_LINKED = 64


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
        """Those with whom there are links, or some of them: through these this peer may join."""
        self.joining: set[str] = set()
        """Those that answered, and are joining as well."""
        self._alone = 0
        """Rounds in which this peer ought to have been the first."""

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
        """Asks those that are linked until this peer is in the mesh."""
        context = self._context
        if context.members.is_entered:
            return
        answered = self.joining.issuperset(self.linked)
        is_first = bool(self.linked) and answered and context.me.key < min(self.joining)
        self._alone = self._alone + 1 if is_first and not context.members.living else 0
        if self._alone == ROUNDS:
            self._entered("")
            return
        context.timers.at(context.now + PATIENCE * context.pace.period, self.join)
        self.meet_linked()
        for peer in context.order.some(1):
            self.begin(peer)

    def link_up(self, peer: str) -> None:
        if len(self.linked) < MOST_LINKED:
            self.linked[peer] = None

    def link_closed(self, peer: str) -> None:
        self.linked.pop(peer, None)
        self.joining.discard(peer)

    def meet_linked(self) -> None:
        """Has all that are linked and not known say who they are."""
        for peer in self.linked:
            if self._context.members.get(peer) is None:
                self.meet(peer)

    def meet(self, peer: str) -> None:
        """Has a peer say who it is."""
        context = self._context
        context.reply(peer, Ping(context.number(), context.me.session, asks=True))

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
        context.reply(sender, Records(compare.number, upto, tuple(buckets), tuple(found)))

    def told(self, sender: str, records: Records) -> None:
        """Its news has been heard already."""
        context = self._context
        if not records.number or records.number != self._number or sender != self._peer:
            return
        self._peer, self._until = "", context.now
        is_entered = context.members.is_entered
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
