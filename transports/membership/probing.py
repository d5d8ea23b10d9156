"""Whether others live: this peer's probes, and those that it makes for others.

    begun --an answer, of the peer or through a helper--> answered
    begun --a period without any--> failed

Whatever a peer says answers a probe of it. A helper that has no answer either says so (`Nack`):
then it is not this peer's own links that are slow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from manta.transports.membership.context import Context
from manta.transports.membership.members import Member, State
from manta.transports.membership.messages import (
    Accusation,
    Ack,
    Alive,
    Claim,
    Nack,
    Ping,
    PingRequest,
    Suspect,
)
from manta.transports.membership.pace import HELPED, HELPERS, STEPS

MOST_PROBES = 16
"""At once: one in its turn, others since something is said of a peer."""
MOST_RELAYED = 1_024
"""Pings for others that are not answered yet."""


@dataclass(eq=False, slots=True)
class Probe:
    member: Member
    number: int
    began: float
    span: float
    """Seconds until it has failed."""
    claim: Claim | None
    """What others say of the peer, if that is why."""
    step: int = 0
    helpers: set[str] = field(default_factory=set)
    nacks: set[str] = field(default_factory=set)
    is_over: bool = False


@dataclass(eq=False, slots=True)
class _Relayed:
    requester: str
    number: int
    target: str


class Prober:
    def __init__(
        self,
        context: Context,
        failed: Callable[[Member, Accusation | None], None],
        vouched: Callable[[Member, Alive], None],
    ) -> None:
        """`failed` is told of a peer that did not answer, with what others say of it, and
        `vouched` that a helper had an answer of the session that others speak of."""
        self._context = context
        self._failed = failed
        self._vouched = vouched
        self._probes: dict[int, Probe] = {}
        """By number."""
        self._by_peer: dict[str, Probe] = {}
        self._relayed: dict[int, _Relayed] = {}

    # --- own probes -------------------------------------------------------------------------

    def next(self, _: None = None) -> None:
        """Probes the next in turn, and so on."""
        context = self._context
        span = context.pace.period * (1 + context.health.doubt)
        context.timers.at(context.now + span, self.next)
        key = context.order.next()
        member = None if key is None else context.members.get(key)
        if member is not None and key not in self._by_peer:
            self._begin(member, None, span)

    def check(self, member: Member, claim: Claim | None = None) -> None:
        """Probes a peer out of turn: at most once in a period for each."""
        context = self._context
        period = context.pace.period
        if (probe := self._by_peer.get(member.peer.key)) is not None:
            probe.claim = probe.claim or claim
        elif len(self._probes) < MOST_PROBES and context.now >= member.checked + period:
            member.checked = context.now
            probe = self._begin(member, claim, period * (1 + context.health.doubt))
            if member.is_closed:
                self._ask_helpers(probe)

    def is_probing(self, member: Member) -> bool:
        return member.peer.key in self._by_peer

    def greet(self, member: Member) -> None:
        """Pings a peer and waits for nothing: it says of itself what it wants to."""
        self._ping(member, self._context.number(), member.peer, asks=True)

    def _begin(self, member: Member, claim: Claim | None, span: float) -> Probe:
        context = self._context
        probe = Probe(member, context.number(), context.now, span, claim)
        self._probes[probe.number] = self._by_peer[member.peer.key] = probe
        self._again(probe)
        return probe

    def _again(self, probe: Probe) -> None:
        """The next step of a probe."""
        if probe.is_over:
            return
        if probe.step == STEPS:
            self._end(probe)
            return
        at = probe.claim if isinstance(probe.claim, Alive) else probe.member.peer
        self._ping(probe.member, probe.number, at, asks=probe.claim is not None)
        if 1 <= probe.step <= HELPED:
            self._ask_helpers(probe)
        probe.step += 1
        self._context.timers.at(probe.began + probe.step * probe.span / STEPS, self._again, probe)

    def _ping(self, member: Member, number: int, at: Alive, *, asks: bool) -> None:
        context = self._context
        news = context.rumours.take(accusations(context, member))
        context.send(at, Ping(number, context.me.session, asks, news))

    def _ask_helpers(self, probe: Probe) -> None:
        context, key = self._context, probe.member.peer.key
        for helper in context.order.some(HELPERS, but=key):
            probe.helpers.add(helper)
            context.reply(helper, PingRequest(probe.number, key, context.rumours.take()))

    def _end(self, probe: Probe) -> None:
        context, member = self._context, probe.member
        self._forget(probe)
        if member.heard >= probe.began:  # though not an answer
            context.health.better()
            return
        missing = len(probe.helpers) - len(probe.nacks)
        context.health.worse(missing if probe.helpers else 1)
        claim = None if isinstance(probe.claim, Alive) else probe.claim
        self._failed(member, claim)

    def _forget(self, probe: Probe) -> None:
        probe.is_over = True
        del self._probes[probe.number], self._by_peer[probe.member.peer.key]

    # --- messages ---------------------------------------------------------------------------

    def pinged(self, sender: str, ping: Ping) -> None:
        context = self._context
        member = context.members.get(sender)
        first = [] if member is None else accusations(context, member)
        if ping.asks and context.members.is_entered:
            first.append(context.me)
        news = context.rumours.take(first)
        context.reply(sender, Ack(ping.number, context.me.session, news))

    def acked(self, sender: str, ack: Ack) -> None:
        context = self._context
        if (probe := self._probes.get(ack.number)) is not None:
            key, claim = probe.member.peer.key, probe.claim
            if sender != key and sender not in probe.helpers:
                return
            self._forget(probe)
            context.health.better()
            if sender == key:
                if ack.session != probe.member.peer.session:
                    self.greet(probe.member)
            elif isinstance(claim, Alive) and claim.session == ack.session:
                self._vouched(probe.member, claim)  # a helper had the answer, this peer none
        elif (relayed := self._relayed.get(ack.number)) is not None and sender == relayed.target:
            del self._relayed[ack.number]
            news = context.rumours.take()
            context.reply(relayed.requester, Ack(relayed.number, ack.session, news))

    def nacked(self, sender: str, nack: Nack) -> None:
        probe = self._probes.get(nack.number)
        if probe is not None and sender in probe.helpers:
            probe.nacks.add(sender)

    def requested(self, sender: str, request: PingRequest) -> None:
        """Another peer has no answer from somebody."""
        context = self._context
        member = context.members.get(request.target)
        if member is None or member.is_gone or len(self._relayed) >= MOST_RELAYED:
            context.reply(sender, Nack(request.number, context.rumours.take()))
            return
        number = context.number()
        self._relayed[number] = _Relayed(sender, request.number, request.target)
        self._ping(member, number, member.peer, asks=False)
        context.timers.at(context.now + HELPED * context.pace.step, self._nack, number)
        context.timers.at(context.now + context.pace.period, self._unrelayed, number)

    def _nack(self, number: int) -> None:
        relayed = self._relayed.get(number)
        if relayed is not None:
            news = self._context.rumours.take()
            self._context.reply(relayed.requester, Nack(relayed.number, news))

    def _unrelayed(self, number: int) -> None:
        self._relayed.pop(number, None)


def accusations(context: Context, member: Member) -> list[Claim]:
    """What a peer is to be told first: that it is suspected, or was given up (buddy system)."""
    if member.state is State.SUSPECT and member.suspicion is not None:
        key, session = member.peer.key, member.peer.session
        return [Suspect(key, session, member.suspicion.incarnation, context.me.key)]
    return [context.members.claim(member)] if member.is_gone else []
