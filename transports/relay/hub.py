"""Which streams a relay carries, and how much of each. Pure.

Theory of operation. A stream joins two links, of two keys that `may` speak to each other, which is
asked again for each message. Bytes that come on one link leave on the other at once. How many may
come is the receiver's credit, which the relay passes on: at once, or later where a node or all
together would move more than their share. So the relay keeps no bytes, and what may be under way to
one link is bounded, however little it reads.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from manta.transports.errors import RemoteProtocolError
from manta.transports.relay import wire
from manta.transports.relay.wire import THEIRS, WINDOW, Kind, Said
from manta.transports.security.admission import Buckets

Link = object
_STEP = 128 * 1024
"""Bytes of credit that one stream is given before others have their turn."""
UNREACHABLE = "the relay does not reach that node"


@dataclass(frozen=True)
class RelayLimits:
    """Bytes, and bytes a second."""

    rate: float = 32e6  # of one node, both ways together
    total: float = 64e6
    promised: int = 4 << 20  # to one link, and not taken by it
    streams: int = 512  # of one node
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
    untaken: int = 0
    """Bytes that were sent here, or may be, without having been taken."""
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
        """Ends that may be given credit."""
        self.due: float | None = None
        """When `tick` has something to do."""

    def __len__(self) -> int:
        return sum(len(one.ends) for one in self._served.values()) // 2

    @property
    def keys(self) -> tuple[str, ...]:
        """Those that streams may be opened to."""
        return tuple(self._served)

    def left(self, link: Link, key: str) -> list[Send]:
        """The link is down."""
        served = self._served.get(key)
        if served is None or served.link != link:
            return []
        del self._served[key]
        return [send for end in served.ends.values() for send in self._end(end, "its peer is gone")]

    def received(self, link: Link, key: str, said: Said, now: float) -> list[Send]:
        """Raises RemoteProtocolError, which is to cost the link."""
        before: list[Send] = []
        served = self._served.get(key)
        if served is None or served.link != link:  # it has come anew
            before = [] if served is None else self.left(served.link, key)
            if len(self._served) >= self._limits.nodes:
                return [Send(link, wire.closing(said.stream, UNREACHABLE))]
            served = self._served[key] = _Served(link, _Rate(self._limits.rate, now))
        return before + self._handle(served, key, said, now)

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
            return self._end(end, said.text)
        if not self._may(key, end.other.key):
            return self._refuse(end)
        if said.kind is Kind.DATA:
            size = len(said.payload)
            if size > end.credit:
                raise RemoteProtocolError(f"{size} bytes of a stream where {end.credit} may come")
            end.credit -= size
            return [Send(end.other.link, wire.data(end.other.number, said.payload))]
        return self._credited(served, end, said.credit, now)

    def _open(self, served: _Served, key: str, said: Said, now: float) -> list[Send]:
        if said.stream & THEIRS or said.stream in served.ends:
            raise RemoteProtocolError("a stream's number that is not free")
        purpose, to = said.opening
        called = self._served.get(to)
        most = self._limits.streams
        if len(served.ends) >= most or not self._opens.of(key).take(now):
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

    def _credited(self, served: _Served, end: _End, size: int, now: float) -> list[Send]:
        """The end has taken bytes, or begins to."""
        first = max(0, size - end.untaken)
        if first > end.unused or not size:
            raise RemoteProtocolError("credit for more than was sent")
        end.unused -= first
        end.untaken -= size - first
        served.promised -= size - first
        end.other.waiting += size
        self._waiting.setdefault(end.other)
        return self.tick(now)

    def tick(self, now: float) -> list[Send]:
        """Passes credit on, as far as shares allow."""
        total = self._total = self._total or _Rate(self._limits.total, now)
        sends: list[Send] = []
        pauses: list[float] = []
        for end in list(self._waiting):
            one, other = self._served.get(end.key), self._served.get(end.other.key)
            assert one is not None
            assert other is not None
            while end.waiting and other.promised < self._limits.promised:
                pause = max(rate.wait(now) for rate in (total, one.rate, other.rate))
                if pause:
                    pauses.append(pause)
                    break
                size = min(end.waiting, _STEP)
                for rate in (total, one.rate, other.rate):
                    rate.take(size)
                end.waiting -= size
                end.credit += size
                end.other.untaken += size
                other.promised += size
                sends.append(Send(end.link, wire.credit(end.number, size)))
            if end.waiting:
                self._waiting.move_to_end(end)
            else:
                del self._waiting[end]
        self.due = now + min(pauses) if pauses else None
        return sends

    def _refuse(self, end: _End) -> list[Send]:
        """Its keys may not be joined any more."""
        self._served[end.key].ends.pop(end.number)
        sends = self._end(end, UNREACHABLE)
        return [Send(end.link, wire.closing(end.number, UNREACHABLE)), *sends]

    def _end(self, end: _End, why: str) -> list[Send]:
        """It is over at this end, which is taken out: the other is told."""
        other = end.other
        for one in (end, other):
            self._waiting.pop(one, None)
            if (served := self._served.get(one.key)) is not None and served.link == one.link:
                served.promised -= one.untaken
        served = self._served.get(other.key)
        if served is None or served.ends.pop(other.number, None) is None:
            return []
        return [Send(other.link, wire.closing(other.number, why))]
