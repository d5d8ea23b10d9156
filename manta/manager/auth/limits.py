"""Whose password is checked next, how often anybody may try, and when failure is told. Pure.

A check takes 64 MiB and about 0.15 s, so two are made at a time and the others wait in lanes:

    who gives the password            waits in the lane of
    a key that is, or was, the user's its user
    any other key                     the account that it names and its source address

Known users and strangers take turns, and so do the lanes of each; in a lane, keys that have tried
less go first. When too many wait, the longest lane gives way, there whoever has tried most; and
nobody waits for long. So who floods delays and pushes out what is his own, and a new key is soon
heard, or told that it was not.

What fails counts against who tried it: against the key and, for strangers, who can make keys,
against source and account together. It never counts against the account alone, or anybody could
lock a user out.

An unknown account takes nothing from users: its check is made only if nothing else is to be
checked, for the same work to be done. A stranger is told of a failure at a time, and with a word,
that follow from what was tried alone, so that nobody learns which accounts exist. What is right is
told at once.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

from manta.actors.errors import Refused
from manta.manager.auth.passwords import AT_A_TIME
from manta.protocol.codes import Code
from manta.transports.security.admission import TokenBucket

T = TypeVar("T")

MOST_WAITING, MOST_IN_A_LANE = 256, 24
"""Of known users, and again of strangers."""
PATIENCE = 10.0
"""Seconds after which a check is not worth its work: who waits may have given up."""
KEPT = 4096
"""Names of each kind whose tries are remembered; the one that was used last longest ago is
forgotten."""


class Buckets:
    """A bucket for each name that was used of late."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._buckets: OrderedDict[object, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, name: object) -> TokenBucket:
        bucket = self._buckets.pop(name, None) or TokenBucket(self._rate, self._burst)
        self._buckets[name] = bucket
        if len(self._buckets) > KEPT:
            self._buckets.popitem(last=False)
        return bucket

    def forget(self, name: object) -> None:
        self._buckets.pop(name, None)


@dataclass(eq=False)
class Attempt(Generic[T]):
    """A password that waits to be checked; `work` is what the caller does then."""

    key: str
    source: str
    account: str
    """The address that was given, whether or not there is such a user."""
    user: str
    """The id of the user whose key it is, or was; "" for a stranger."""
    work: T
    exists: bool = True
    """Whether there is such a user."""
    tries: int = 0
    """How often the key had tried before, and failed or still waited."""
    since: float = 0.0

    @property
    def lane(self) -> tuple[str, str]:
        return (self.user, "") if self.user else (self.account, self.source)


class _Lanes(Generic[T]):
    def __init__(self, most: int) -> None:
        self._most = most
        self._lanes: OrderedDict[tuple[str, str], list[Attempt[T]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def waiting(self, attempt: Attempt[T]) -> int:
        """How many of the same key wait already."""
        lane = self._lanes.get(attempt.lane, ())
        return sum(one.key == attempt.key for one in lane)

    def join(self, attempt: Attempt[T]) -> Attempt[T] | None:
        """Returns the one that gives way if too many wait, which may be this one."""
        lane = self._lanes.setdefault(attempt.lane, [])
        at = len(lane)
        while at and lane[at - 1].tries > attempt.tries:
            at -= 1
        lane.insert(at, attempt)
        self._count += 1
        if len(lane) > MOST_IN_A_LANE:
            return self._take(attempt.lane, -1)
        if self._count > self._most:
            newest_first = reversed(self._lanes)
            return self._take(max(newest_first, key=lambda name: len(self._lanes[name])), -1)
        return None

    def next(self, busy: set[str]) -> Attempt[T] | None:
        """Takes the first that is not of a busy key, from each lane in turn."""
        for name, lane in self._lanes.items():
            for at, attempt in enumerate(lane):
                if attempt.key not in busy:
                    self._lanes.move_to_end(name)
                    return self._take(name, at)
        return None

    def _take(self, name: tuple[str, str], at: int) -> Attempt[T]:
        lane = self._lanes[name]
        taken = lane.pop(at)
        self._count -= 1
        if not lane:
            del self._lanes[name]
        return taken


class SignIns(Generic[T]):
    """Orders the checks of passwords, and refuses those that are too many."""

    def __init__(self) -> None:
        self._known: _Lanes[T] = _Lanes(MOST_WAITING)
        self._strangers: _Lanes[T] = _Lanes(MOST_WAITING)
        self._nobody: _Lanes[T] = _Lanes(AT_A_TIME)
        """For accounts that do not exist."""
        self._turns = [self._known, self._strangers]
        """Whose turn it is comes first."""
        self._busy: set[str] = set()
        """Keys whose password is being checked: one of each at a time."""
        self._own = Buckets(rate=1 / 12, burst=5.0)
        """Failures, by key."""
        self._guesses = Buckets(rate=1.0, burst=300.0)
        """Failures of strangers, by source and account."""
        self._tries: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known) + len(self._strangers)

    def join(self, attempt: Attempt[T], now: float) -> Attempt[T] | None:
        """It waits from now on. Returns the one that gives way to it, or itself, if too many do."""
        attempt.since = now
        lanes = self._known if attempt.user else self._strangers
        attempt.tries = self._tries.get(attempt.key, 0) + lanes.waiting(attempt)
        return lanes.join(attempt)

    def fail(self, attempt: Attempt[T], now: float) -> Refused | None:
        """Counts a failure at an account that does not exist. Returns the refusal that it would
        have got without a check."""
        refusal = self._count(attempt, now)
        if refusal is None:
            self._tried(attempt)
            self._nobody.join(attempt)  # whichever gives way: it is not waited for
        return refusal

    def next(self, now: float) -> tuple[Attempt[T], Refused | None] | None:
        """The one to be checked now until `ended`, or to be refused without; None if there is none,
        or no room."""
        if len(self._busy) >= AT_A_TIME:
            return None
        for lanes in self._turns:
            if (attempt := lanes.next(self._busy)) is not None:
                self._turns.remove(lanes)
                self._turns.append(lanes)
                if now - attempt.since > PATIENCE:
                    return attempt, too_many("Too many sign-ins wait to be checked")
                refusal = self._count(attempt, now)
                if refusal is None:
                    self._busy.add(attempt.key)
                return attempt, refusal
        if (attempt := self._nobody.next(self._busy)) is not None:
            self._busy.add(attempt.key)
            return attempt, None
        return None

    def _count(self, attempt: Attempt[T], now: float) -> Refused | None:
        """Each counts as a failure until it has ended well."""
        own = self._own.of(attempt.key)
        if not own.take(now):
            return too_many("Too many sign-ins with this key have failed")
        if not attempt.user and not self._guesses.of(_pair(attempt)).take(now):
            own.give_back()
            return too_many("Too many sign-ins with this address from where you are have failed")
        return None

    def ended(self, attempt: Attempt[T], *, failed: bool) -> None:
        self._busy.discard(attempt.key)
        if failed:
            if attempt.exists:
                self._tried(attempt)
            return
        self._tries.pop(attempt.key, None)
        self._own.forget(attempt.key)
        if not attempt.user:
            self._guesses.of(_pair(attempt)).give_back()

    def _tried(self, attempt: Attempt[T]) -> None:
        self._tries[attempt.key] = self._tries.pop(attempt.key, 0) + 1
        if len(self._tries) > KEPT:
            self._tries.popitem(last=False)


class Answers:
    """When strangers are told that their sign-in failed, by the account that they name."""

    AFTER = 1.0
    """Seconds; a check is over by then."""
    APART = 1 / 8
    """Seconds between two answers about an account."""
    LONGEST = 6.0
    """Seconds; who would wait for longer is told that there are too many, after AFTER."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, float] = OrderedDict()

    def at(self, account: str, now: float) -> tuple[float, bool]:
        """When to answer, and whether there are too many."""
        due = max(now + self.AFTER, self._last.pop(account, 0.0) + self.APART)
        crowded = due > now + self.LONGEST
        self._last[account] = due - self.APART if crowded else due
        if len(self._last) > KEPT:
            self._last.popitem(last=False)
        return (now + self.AFTER if crowded else due), crowded


def _pair(attempt: Attempt[T]) -> tuple[str, str]:
    return attempt.source, attempt.account


class TokenTries:
    """How often tokens may be tried: by each known key, and by strangers of each source."""

    def __init__(self) -> None:
        self._tries = Buckets(rate=50.0, burst=500.0)

    def check(self, who: str, now: float) -> None:
        """Raises Refused."""
        if not self._tries.of(who).take(now):
            raise too_many("Too many tokens are being tried")


def too_many(what: str) -> Refused:
    return Refused(Code.RATE_LIMITED, f"{what}; wait a minute and try again.")
