"""Which streams a relay carries, and how much of each. Pure.

Theory of operation. A stream joins two links, of two keys that `may` speak to each other, which is
asked again for each message. Bytes that come on one link leave on the other at once. How many may
come is the receiver's credit, which the relay passes on as far as shares allow. So the relay keeps
no bytes, and what may be under way to one link is bounded, however little it reads.

A stream always has its *reserve*, whatever others do: links come up and stay up. More is given only
to a stream whose sender has used half of that, from what all streams to a link share (`promised`),
in turn; what it does not use, the sender gives back.

    at rest --less than half of the reserve is left to the sender--> in use
    in use --the sender gives back--> at rest

| what is wanted | waits while |
|---|---|
| the reserve | one of both nodes has used up its rate |
| more | that, or all nodes have used up theirs, or the link has been promised its share |
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError
from manta.transports.relay import wire
from manta.transports.relay.wire import REPORT, RESERVE, THEIRS, WINDOW, Kind, Said
from manta.transports.security.admission import Buckets

Link = object
_STEP = 128 * 1024
"""Bytes of credit that one stream is given before others have their turn."""
_TURN, _TICK = 128, 0.005
"""Streams that are looked at in one tick, and seconds between two."""
UNREACHABLE = "the relay does not reach that node"


@dataclass(frozen=True)
class RelayLimits:
    """Bytes (`wire.cost`), and bytes a second. A link's window, 8 MiB, has to hold the reserves of
    its streams and what it is promised."""

    rate: float = 32e6  # of one node, both ways together
    total: float = 64e6
    promised: int = 3 << 20  # to one link, besides reserves, and not taken by it
    streams: int = 512  # of one node
    between: int = 4  # of them, with one other
    opens: float = 20.0  # streams that a node opens, a second
    opens_burst: float = 512.0
    nodes: int = 4096


class Send(NamedTuple):
    link: Link
    said: Said


class _Rate:
    """May be overdrawn by a step, and is then waited for."""

    def __init__(self, rate: float, now: float) -> None:
        self._rate, self._left, self._at = rate, rate / 4, now

    def wait(self, now: float) -> float:
        """Seconds until something may be taken."""
        self._left = min(self._rate / 4, self._left + (now - self._at) * self._rate)
        self._at = now
        return 0.0 if self._left > 0 else -self._left / self._rate + 1e-3

    def take(self, size: int) -> None:
        self._left -= size


@dataclass(eq=False)
class _End:
    """One end of a stream."""

    link: Link
    key: str
    number: int
    other: _End = field(init=False)
    credit: int = 0
    """Bytes that may come on this link."""
    waiting: int = 0
    """Of credit that its peer has given, and that is yet to be passed on."""
    in_use: bool = False
    """Whether its sender wants more than the reserve."""
    promised: int = 0
    """Of what the other end's link was promised."""
    under_way: int = 0
    """Bytes that were sent here, and not taken."""
    unused: int = WINDOW
    """Of the first credit that this end may give."""


@dataclass(eq=False)
class _Served:
    link: Link
    rate: _Rate
    ends: dict[int, _End] = field(default_factory=dict)
    """By number."""
    last: int = 0
    promised: int = 0
    held: OrderedDict[_End, None] = field(default_factory=OrderedDict)
    """Ends of its peers' that wait until it has taken some of that."""


class Hub:
    """`may(key, other)`: whether nodes with these keys are to be joined."""

    def __init__(self, may: Callable[[str, str], bool], limits: RelayLimits | None = None) -> None:
        self._may = may
        self._limits = limits or RelayLimits()
        self._served: dict[str, _Served] = {}
        """By key: the link over which it said something last."""
        self._total: _Rate | None = None
        self._opens = Buckets(self._limits.opens, self._limits.opens_burst, self._limits.nodes)
        self._waiting: OrderedDict[_End, None] = OrderedDict()
        """Ends that wait for a rate."""
        self.due: float | None = None
        """When `tick` has something to do."""

    def __len__(self) -> int:
        return sum(len(one.ends) for one in self._served.values()) // 2

    @property
    def keys(self) -> tuple[str, ...]:
        """Those that streams may be opened to."""
        return tuple(self._served)

    def left(self, link: Link, key: str, now: float) -> list[Send]:
        """The link is down."""
        served = self._served.get(key)
        if served is None or served.link != link:
            return []
        del self._served[key]
        return self._end_all(list(served.ends.values()), "its peer is gone", now)

    def received(self, link: Link, key: str, said: Said, now: float) -> list[Send]:
        """Raises RemoteProtocolError, which is to cost the link."""
        before: list[Send] = []
        served = self._served.get(key)
        if served is None or served.link != link:  # it has come anew
            before = [] if served is None else self.left(served.link, key, now)
            if len(self._served) >= self._limits.nodes:
                return [Send(link, wire.closing(said.stream, UNREACHABLE))]
            served = self._served[key] = _Served(link, _Rate(self._limits.rate, now))
        return before + self._handle(served, key, said, now)

    def tick(self, now: float) -> list[Send]:
        """Passes on credit that waited for a rate."""
        self.due = None
        sends: list[Send] = []
        waiting = len(self._waiting)
        for _ in range(min(waiting, _TURN)):
            end, _ = self._waiting.popitem(last=False)
            sends += self._pass_on(end, now, its_turn=True)
            sends += self._wake(self._served[end.other.key], now)
        if waiting > _TURN:
            self.due = now + _TICK
        return sends

    def _handle(self, served: _Served, key: str, said: Said, now: float) -> list[Send]:
        if said.kind is Kind.HERE:
            return []
        if said.kind is Kind.OPEN:
            return self._open(served, key, said, now)
        end = served.ends.get(said.stream)
        if end is None:
            return []  # it was closed in this moment
        if said.kind is Kind.CLOSE:
            del served.ends[end.number]
            return self._end_all([end], said.text, now)
        if not self._may(key, end.other.key):
            return self._refuse(end, now)
        if said.kind is Kind.DATA:
            return self._moved(end, said.payload, now)
        if said.kind is Kind.BACK:
            return self._given_back(end, said.credit, now)
        return self._credited(end, said.credit, now)

    def _open(self, served: _Served, key: str, said: Said, now: float) -> list[Send]:
        if said.stream & THEIRS or said.stream in served.ends:
            raise RemoteProtocolError("a stream's number that is not free")
        purpose, to = said.opening
        called = self._served.get(to)
        most = self._limits.streams
        between = sum(end.other.key == to for end in served.ends.values())
        is_one_too_many = len(served.ends) >= most or between >= self._limits.between
        if is_one_too_many or not self._opens.of(key).take(now):
            return [Send(served.link, wire.closing(said.stream, "too many streams at a time"))]
        if called is None or key == to or not self._may(key, to) or len(called.ends) >= most:
            return [Send(served.link, wire.closing(said.stream, UNREACHABLE))]
        while THEIRS | called.last in called.ends:
            called.last = (called.last + 1) % THEIRS
        one = _End(served.link, key, said.stream)
        other = _End(called.link, to, THEIRS | called.last)
        called.last = (called.last + 1) % THEIRS
        one.other, other.other = other, one
        served.ends[one.number], called.ends[other.number] = one, other
        return [Send(called.link, wire.opening(other.number, purpose, key))]

    def _moved(self, end: _End, payload: bytes, now: float) -> list[Send]:
        size = wire.cost(payload)
        if size > end.credit:
            raise RemoteProtocolError(f"{size} bytes of a stream where {end.credit} may come")
        end.credit -= size
        end.other.under_way += size
        sends = [Send(end.other.link, wire.data(end.other.number, payload))]
        if not end.in_use and end.credit < RESERVE // 2:
            end.in_use = True
            sends += self._pass_on(end, now)
        return sends

    def _credited(self, end: _End, size: int, now: float) -> list[Send]:
        """The end has taken bytes, or begins to."""
        taken = min(size, end.under_way)
        if size - taken > end.unused:
            raise RemoteProtocolError("credit for more than was sent")
        if size < REPORT:
            raise RemoteProtocolError(f"credit for {size} bytes, where {REPORT} are the least")
        end.unused -= size - taken
        end.under_way -= taken
        end.other.waiting += size
        self._count(end.other)
        return self._pass_on(end.other, now) + self._wake(self._served[end.key], now)

    def _given_back(self, end: _End, size: int, now: float) -> list[Send]:
        """The sender does not use so much of its credit."""
        if size > end.credit:
            raise RemoteProtocolError(f"{size} bytes are given back where {end.credit} may come")
        end.credit -= size
        end.waiting += size
        end.in_use = False
        for rate in self._rates(end, now):
            rate.take(-size)
        self._count(end)
        return self._wake(self._served[end.other.key], now)

    def _rates(self, end: _End, now: float) -> tuple[_Rate, _Rate, _Rate]:
        total = self._total = self._total or _Rate(self._limits.total, now)
        return total, self._served[end.key].rate, self._served[end.other.key].rate

    def _pass_on(self, end: _End, now: float, *, its_turn: bool = False) -> list[Send]:
        """Gives the sender at `end` as much of the credit that waits as is its due now."""
        called = self._served[end.other.key]
        total, *rates = self._rates(end, now)
        passed = 0
        while end.waiting and end not in self._waiting:
            reserve = RESERVE - end.credit - end.other.under_way
            if reserve > 0:
                size, pause = min(end.waiting, reserve), max(rate.wait(now) for rate in rates)
            elif not end.in_use:
                break
            elif called.promised >= self._limits.promised or (called.held and not its_turn):
                called.held.setdefault(end, None)
                break
            else:
                size = min(end.waiting, _STEP)
                pause = max(total.wait(now), *(rate.wait(now) for rate in rates))
            if pause:
                self._waiting[end] = None
                at = now + max(pause, _TICK)
                self.due = at if self.due is None else min(self.due, at)
                break
            for rate in (total, *rates):
                rate.take(size)
            end.waiting -= size
            end.credit += size
            passed += size
            self._count(end)
        return [Send(end.link, wire.credit(end.number, passed))] if passed else []

    def _wake(self, served: _Served, now: float) -> list[Send]:
        """Of those that wait for what the link was promised, gives to whose turn it is."""
        sends: list[Send] = []
        while served.held and served.promised < self._limits.promised:
            end, _ = served.held.popitem(last=False)
            sends += self._pass_on(end, now, its_turn=True)
            if end in self._waiting:
                break
        return sends

    def _count(self, end: _End) -> None:
        """Of what the other link is promised, what is beyond the stream's reserve."""
        promised = max(0, end.credit + end.other.under_way - RESERVE)
        self._served[end.other.key].promised += promised - end.promised
        end.promised = promised

    def _refuse(self, end: _End, now: float) -> list[Send]:
        """Its keys may not be joined any more."""
        del self._served[end.key].ends[end.number]
        sends = self._end_all([end], UNREACHABLE, now)
        return [Send(end.link, wire.closing(end.number, UNREACHABLE)), *sends]

    def _end_all(self, ends: list[_End], why: str, now: float) -> list[Send]:
        """They are over at these ends, which are taken out: the others are told."""
        sends: list[Send] = []
        freed: dict[str, None] = {}
        for end in ends:
            for one in (end, end.other):
                self._waiting.pop(one, None)
                its = self._served.get(one.key)
                if its is not None and its.link == one.link:
                    its.promised -= one.other.promised
                    its.held.pop(one.other, None)
                    freed[one.key] = None
            its = self._served.get(end.other.key)
            if its is not None and its.ends.pop(end.other.number, None) is not None:
                sends.append(Send(end.other.link, wire.closing(end.other.number, why)))
        return sends + [send for key in freed for send in self._wake(self._served[key], now)]
