"""Who may connect: a snapshot of public keys in memory, replaced as a whole.

Reading takes no lock, so that the ZAP thread can always answer.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import Enum

from manta.transports.security.offences import Offences
from manta.transports.security.strangers import Fate, StrangerLimits, Tally, source_of

KNOWN_RATE, KNOWN_BURST = 20.0, 200.0  # handshakes of one owner of known keys, a second


class Decision(Enum):
    """The answer to a handshake."""

    ALLOW = "allow"
    DENY = "deny"
    BUSY = "busy"  # cannot decide now: the peer should ask again


class Standing(Enum):
    """What a key may do."""

    KNOWN = "known"
    GUEST = "guest"  # may enrol or sign in, and nothing else
    DENIED = "denied"


class TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run. Pure: time is an argument."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._filled_at: float | None = None

    def take(self, now: float) -> bool:
        if self._filled_at is not None:
            gained = max(0.0, now - self._filled_at) * self._rate
            self._tokens = min(self._burst, self._tokens + gained)
        self._filled_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def give_back(self) -> None:
        """What was taken need not have been."""
        self._tokens = min(self._burst, self._tokens + 1.0)


class Buckets:
    """A bucket for each of those who took last: at most `most` of them."""

    def __init__(self, rate: float, burst: float, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, who: str) -> TokenBucket:
        bucket = self._buckets.pop(who, None)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst)
            if len(self._buckets) >= self._most:
                self._buckets.popitem(last=False)
        self._buckets[who] = bucket
        return bucket


class Handshakes:
    """How often unknown keys may finish a handshake."""

    def __init__(self, limits: StrangerLimits) -> None:
        self._total = TokenBucket(limits.rate, limits.burst)
        self._sources = Buckets(limits.rate_per_source, limits.burst_per_source, limits.sources)

    def take(self, source: str, now: float) -> bool:
        bucket = self._sources.of(source)
        # The source's own first, so that one source alone does not use up what is for all.
        if not bucket.take(now):
            return False
        if self._total.take(now):
            return True
        bucket.give_back()
        return False


@dataclass(frozen=True)
class _Snapshot:
    known: frozenset[str]
    denied: frozenset[str]


class Admission:
    """The keys that a listener admits.

    With `guests`, unknown keys pass the handshake too, as many as `limits` say; the layer
    above checks their `standing` and lets them enrol or sign in only. `tally` counts what
    becomes of them. `owner_of` says whose a known key is, for what all keys of one owner share;
    it may be called on any thread.
    """

    def __init__(
        self,
        known: Iterable[str] = (),
        guests: bool = False,
        *,
        limits: StrangerLimits | None = None,
        tally: Tally | None = None,
        owner_of: Callable[[str], str] = str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = _Snapshot(frozenset(known), frozenset())
        self.changes = 0
        """Grows with each change of what keys may do."""
        self._guests = guests
        self.limits = limits or StrangerLimits()
        self.tally = tally or Tally()
        self.owner_of = owner_of
        self._handshakes = Handshakes(self.limits)
        self._known_handshakes = Buckets(KNOWN_RATE, KNOWN_BURST, self.limits.sources)
        self._clock = clock
        self._writing = threading.Lock()
        self._watchers: list[Callable[[str], object]] = []
        self._offences = Offences()

    def allow(self, key: str) -> None:
        """Make a key known; lifts a denial."""
        with self._writing:
            old = self._snapshot
            self._become(_Snapshot(old.known | {key}, old.denied - {key}))

    def forget(self, key: str) -> None:
        """Make a key unknown: a guest where guests are admitted, else denied."""
        with self._writing:
            old = self._snapshot
            self._become(_Snapshot(old.known - {key}, old.denied - {key}))
        self._tell_withdrawn(old.known & {key})

    def deny(self, key: str) -> None:
        """Refuse a key, also as a guest. `Listener.cut` ends its links as well."""
        with self._writing:
            old = self._snapshot
            if key in old.denied:
                return
            self._become(_Snapshot(old.known - {key}, old.denied | {key}))
        self._tell_withdrawn(old.known & {key})

    def replace_known(self, keys: Iterable[str]) -> None:
        """Replace the set of known keys, atomically; denials remain."""
        with self._writing:
            old = self._snapshot
            now = replace(old, known=frozenset(keys) - old.denied)
            self._become(now)
        self._tell_withdrawn(old.known - now.known)

    def _become(self, snapshot: _Snapshot) -> None:
        self._snapshot = snapshot
        self.changes += 1

    def watch(self, withdrawn: Callable[[str], object]) -> Callable[[], None]:
        """Have each key that ceases to be known told, before the call that did it returns.

        Returns what ends that.
        """
        with self._writing:
            self._watchers = [*self._watchers, withdrawn]

        def unwatch() -> None:
            with self._writing:
                self._watchers = [one for one in self._watchers if one != withdrawn]

        return unwatch

    def _tell_withdrawn(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._offences.forget(key)
            for withdrawn in self._watchers:
                withdrawn(key)

    def standing(self, key: str) -> Standing:
        snapshot = self._snapshot
        if key in snapshot.denied:
            return Standing.DENIED
        if key in snapshot.known:
            return Standing.KNOWN
        return Standing.GUEST if self._guests else Standing.DENIED

    def denies(self, key: str) -> bool:
        """Is the key denied now? To be asked for every message: ZAP decides only once."""
        snapshot = self._snapshot
        if key in snapshot.denied:
            return True
        return not self._guests and key not in snapshot.known

    def offended(self, key: str) -> None:
        """The peer broke the protocol. A known one that does so often has to wait."""
        if self.standing(key) is Standing.KNOWN:
            self._offences.note(key, self._clock())

    def decide(self, key: str, address: str = "") -> Decision:
        """Answer a handshake of who has that IP address. It takes tokens: call it once for
        each."""
        standing = self.standing(key)
        if standing is Standing.KNOWN:
            now, owner = self._clock(), self.owner_of(key)
            with self._writing:
                often = not self._known_handshakes.of(owner).take(now)
            often = often or self._offences.too_many(key, now)
            return Decision.BUSY if often else Decision.ALLOW
        if standing is Standing.DENIED:
            return Decision.DENY
        source = source_of(address)
        with self._writing:
            if self._handshakes.take(source, self._clock()):
                return Decision.ALLOW
        self.tally.count(Fate.PUT_OFF, source)
        return Decision.BUSY
