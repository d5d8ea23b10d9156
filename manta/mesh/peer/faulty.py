"""Links with the faults that an experiment asks for (`manta.mesh.faults`).

What controls say about membership is lost and delayed message by message, as datagrams are. All
else is a stream: what is lost is sent again after `RESENT` seconds, as TCP does, and what follows
it waits. Between the sides of a partition there is no link. Peers are numbered by the digits at the
end of their names; one without any has no faults.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from manta.mesh.fault_words import said
from manta.mesh.faults import Dropped, Faults
from manta.node.plane.links import PeerLinks
from manta.transports.errors import DownReason
from manta.transports.interface import Link

RESENT = 0.2
"""Seconds: the least timeout of retransmission of Linux."""
MOST_WAITING = 16 << 20
"""Bytes that wait for one peer: of more the link is ended, as where a peer takes nothing."""
MOST_LOOSE = 10_000
"""Messages of membership that wait: of more, one is lost."""
_EVERY = 0.1
"""Seconds between two looks at partitions."""
_STREAM = 1 << 40
"""Numbers of a stream's messages begin there, those of membership at 0."""
_MOST_LOSSES = 20

log = logging.getLogger("manta.mesh")


@dataclass
class _Stream:
    """What waits for a peer, and until when."""

    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    size: int = 0
    timer: Any = None


class FaultyLinks(PeerLinks):
    """As `PeerLinks` until `inject` is called."""

    _faults: Faults | None = None

    def inject(self, faults: Faults, name: str, size: int) -> None:
        """This peer has that name; the experiment begins once so many peers are in the view."""
        self._faults = faults
        self._number = number_of(name)
        self._size = size
        self._began: float | None = None
        self._counts: Counter[tuple[str, bool]] = Counter()
        self._streams: dict[str, _Stream] = {}
        self._loose = 0
        self.injected: Counter[str] = Counter()
        """How many messages were lost, delayed, and how many links parted."""
        log.warning("Faults are injected here, for an experiment: %s.", said(faults.form()))

    def meets(self, size: int) -> None:
        """So many are in the view."""
        if self._faults is not None and self._began is None and size >= self._size:
            self._began = time.monotonic()
            if self._faults.partitions:
                self._look_at_partitions()

    @property
    def _time(self) -> float:
        """Since the experiment began; before it there are no partitions."""
        return -1.0 if self._began is None else time.monotonic() - self._began

    @property
    def faults(self) -> dict[str, Any] | None:
        """For `status`."""
        if self._faults is None:
            return None
        return {**self._faults.form(), "time": self._time, "injected": dict(self.injected)}

    @property
    def hold_back(self) -> bool:
        """Whether anything waits to be sent."""
        if self._faults is None:
            return False
        return self._loose > 0 or any(one.waiting for one in self._streams.values())

    # --- messages -------------------------------------------------------------------------------

    def send_loosely(self, key: str, data: bytes) -> bool:
        """As a datagram."""
        if not self.is_up(key):
            return False
        delay = self._delay(key, is_loose=True)
        if delay is None:
            return True  # it is lost
        if delay == 0:
            return super().send(key, data)
        if self._loose < MOST_LOOSE:
            self._loose += 1
            self._call_later(delay, partial(self._send_late, key, data))
        return True

    def _send_late(self, key: str, data: bytes) -> None:
        self._loose -= 1
        super().send(key, data)

    def send(self, key: str, data: bytes) -> bool:
        if self._faults is None or not self.is_up(key):
            return super().send(key, data)
        delay = 0.0
        for _ in range(_MOST_LOSSES):
            found = self._delay(key, is_loose=False)
            delay += RESENT if found is None else found
            if found is not None:
                break
        stream = self._streams.setdefault(key, _Stream())
        if delay == 0 and not stream.waiting:
            return super().send(key, data)
        if stream.size + len(data) > MOST_WAITING:
            self.end(key, "faults hold back more than it may take")
            return False
        latest = stream.waiting[-1][0] if stream.waiting else 0.0
        stream.waiting.append((max(latest, time.monotonic() + delay), data))
        stream.size += len(data)
        self._set_timer(key, stream)
        return True

    def has_room(self, key: str) -> bool:
        stream = None if self._faults is None else self._streams.get(key)
        is_full = stream is not None and stream.size > MOST_WAITING // 2
        return not is_full and super().has_room(key)

    def _delay(self, key: str, *, is_loose: bool) -> float | None:
        """Of the next message to a peer; None where it is lost."""
        other = self._number_of(key)
        if self._faults is None or self._number is None or other is None:
            return 0.0
        count = self._counts[key, is_loose]
        self._counts[key, is_loose] += 1
        number = count + (0 if is_loose else _STREAM)
        fate = self._faults.fate(self._number, other, number, self._time)
        if isinstance(fate, Dropped):
            self.injected["lost"] += 1
            return None
        self.injected["delayed"] += fate.delay > 0
        return fate.delay

    def _set_timer(self, key: str, stream: _Stream) -> None:
        if stream.timer is None and stream.waiting:
            pause = max(0.0, stream.waiting[0][0] - time.monotonic())
            stream.timer = self._call_later(pause, partial(self._flow, key, stream))

    def _flow(self, key: str, stream: _Stream) -> None:
        stream.timer = None
        if self._streams.get(key) is not stream:
            return
        while stream.waiting and stream.waiting[0][0] <= time.monotonic():
            _, data = stream.waiting.popleft()
            stream.size -= len(data)
            super().send(key, data)
        self._set_timer(key, stream)

    def left(self, link: Link, reason: DownReason) -> None:
        if self._faults is not None and link is self.link(link.peer_key):
            self._streams.pop(link.peer_key, None)  # what comes over the next link is said anew
        super().left(link, reason)

    # --- partitions -----------------------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        if not self._is_parted(link.peer_key):
            super().link_up(link)
        elif link.address:
            self.link_down(link, DownReason.UNREACHABLE)
        else:
            link.close()

    def relayed_up(self, link: Link) -> None:
        if self._is_parted(link.peer_key):
            link.close()
        else:
            super().relayed_up(link)

    def _look_at_partitions(self) -> None:
        for key in list(self._keys()):
            if self.is_up(key) and self._is_parted(key):
                self.injected["parted"] += 1
                self.end(key, "an experiment parts the network")
        self._call_later(_EVERY, self._look_at_partitions)

    def _is_parted(self, key: str) -> bool:
        other = self._number_of(key)
        if self._faults is None or self._number is None or other is None:
            return False
        now = self._time
        return any(one.parts(self._number, other, now) for one in self._faults.partitions)

    def _keys(self) -> Iterator[str]:
        return (state.peer.key for state in self.states())

    def _number_of(self, key: str) -> int | None:
        linked = self._peers.get(key)
        return None if linked is None else number_of(linked.peer.alias)


def number_of(name: str) -> int | None:
    """That at the end of a peer's name."""
    found = re.search(r"[0-9]{1,9}\Z", name)
    return None if found is None else int(found[0])
