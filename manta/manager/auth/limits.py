"""Whose password is checked next, how often anybody may try, and when failure is told. Pure.

A check takes 64 MiB and about 0.15 s, so two are made at a time and the others wait in lanes:

    who gives the password            waits in the lane of
    a key that is, or was, the user's its user
    any other key                     the account that it names and its source address

Known users, new passwords that are to be hashed, and strangers take turns, and so do the lanes of
each; in a lane, keys that have tried less go first. When too many wait, the longest lane gives
way, there whoever has tried most. So who floods delays and pushes out what is his own, and a new
key is soon heard.

What is tried counts against who tried it, until it proves right: against the key and, for
strangers, who can make keys, against source and account together. It never counts against the
account alone, or anybody could lock a user out. Where source and account have failed too often,
strangers go on in a slow lane, in an order that nobody can foresee: a right password that comes
from the address of a guesser has its chance as each of the guesses has.

An unknown account takes nothing from users: its check is made only if nothing else is to be
checked, for the same work to be done. A stranger is told of a failure at a time, and with a word,
that follow from what was tried alone, whether or not it was checked by then, so that nobody learns
which accounts exist. What is right is told at once.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from collections.abc import Container
from dataclasses import dataclass
from typing import Generic, TypeVar

from manta.actors.errors import Refused
from manta.manager.auth.passwords import AT_A_TIME
from manta.protocol.codes import Code

T = TypeVar("T")

MOST_WAITING, MOST_IN_A_LANE = 256, 24
"""Of known users, and again of strangers."""
PATIENCE = 10.0
"""Seconds after which a known user is not kept waiting: who waits may have given up."""
GUESSES = 300
"""What strangers may guess at once, of one source and account."""
KEPT = 4096
"""Names of each kind whose tries are remembered."""
SLOW_TURN = 1.25
"""Seconds between two checks of a slow lane."""


def _forget(times: dict[object, float]) -> None:
    """If there are too many, those that matter least: which lie furthest in the past."""
    if len(times) > KEPT:
        for name in heapq.nsmallest(KEPT // 8, times, key=times.__getitem__):
            del times[name]


class Buckets:
    """A bucket for each name: `burst` at once, and `rate` a second in the long run.

    When there are too many, the fullest are forgotten: who makes names up empties none of them,
    so that a bucket which somebody has emptied stays empty.
    """

    def __init__(self, rate: float, burst: float) -> None:
        self._cost, self._whole = 1 / rate, burst / rate
        self._full_at: dict[object, float] = {}
        """When each will be full again, which is not in between."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: object, now: float) -> bool:
        full_at = max(self._full_at.get(name, now), now) + self._cost
        if full_at > now + self._whole + 1e-6:
            return False
        self._full_at[name] = full_at
        _forget(self._full_at)
        return True

    def used(self, name: object, now: float) -> float:
        """How much of it is taken."""
        return max(0.0, self._full_at.get(name, now) - now) / self._cost

    def give_back(self, name: object) -> None:
        """What was taken need not have been."""
        if name in self._full_at:
            self._full_at[name] -= self._cost

    def forget(self, name: object) -> None:
        self._full_at.pop(name, None)


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
    is_new: bool = False
    """Whether the password is a new one, to be hashed: nothing is guessed."""
    lot: float = 0.0
    """Drawn for it, by the caller: among those that have tried as often, the lowest goes first."""

    # Decided when it joins.
    rank: float = 0.0
    """How often its key has tried and not been right of late, or waits."""
    since: float = 0.0
    slow: bool = False
    place: int = 0
    """Among strangers who are to be told of failures; 0 for one that is slow or too many."""
    due: float | None = None
    """When a failure is told; None: at once."""
    failure: Refused | None = None
    """As what a failure is told; None: as what it is."""

    # What became of it.
    failed: bool | None = None
    """None until it has been checked."""

    @property
    def lane(self) -> tuple[str, str]:
        return (self.user, "") if self.user else (self.account, self.source)

    @property
    def order(self) -> tuple[float, bool, float]:
        """In its lane."""
        return self.rank, not self.place, self.lot


class _Lanes(Generic[T]):
    def __init__(self, most: int, most_in_a_lane: int, pace: Buckets | None = None) -> None:
        """`pace`: how often each lane has its turn."""
        self._most, self._most_in_a_lane = most, most_in_a_lane
        self._pace = pace
        self._lanes: OrderedDict[tuple[str, str], list[Attempt[T]]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def join(self, attempt: Attempt[T]) -> Attempt[T] | None:
        """Returns the one that gives way if too many wait, which may be this one."""
        lane = self._lanes.setdefault(attempt.lane, [])
        at = len(lane)
        while at and lane[at - 1].order > attempt.order:
            at -= 1
        lane.insert(at, attempt)
        self._count += 1
        if len(lane) > self._most_in_a_lane:
            return self._take(attempt.lane, -1)
        if self._count > self._most:
            newest_first = reversed(self._lanes)
            return self._take(max(newest_first, key=lambda name: len(self._lanes[name])), -1)
        return None

    def leave(self, attempt: Attempt[T]) -> None:
        """It is given up, if it still waits."""
        lane = self._lanes.get(attempt.lane, [])
        if attempt in lane:
            self._take(attempt.lane, lane.index(attempt))

    def next(self, busy: Container[str], now: float) -> Attempt[T] | None:
        """Takes the first that is not of a busy key, from each lane in turn."""
        for name, lane in self._lanes.items():
            for at, attempt in enumerate(lane):
                if attempt.key not in busy:
                    if self._pace is not None and not self._pace.take(name, now):
                        break
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
        self._known: _Lanes[T] = _Lanes(MOST_WAITING, MOST_IN_A_LANE)
        self._new: _Lanes[T] = _Lanes(MOST_WAITING, MOST_WAITING)
        self._strangers: _Lanes[T] = _Lanes(MOST_WAITING, MOST_IN_A_LANE)
        pace = Buckets(rate=1 / SLOW_TURN, burst=1.0)
        self._slow: _Lanes[T] = _Lanes(MOST_WAITING, MOST_IN_A_LANE, pace)
        self._nobody: _Lanes[T] = _Lanes(AT_A_TIME, AT_A_TIME)
        """For accounts that do not exist."""
        self._turns = [self._known, self._new, self._strangers, self._slow]
        """Whose turn it is comes first."""
        self._busy: dict[str, float] = {}
        """Since when the password of a key is being checked: one of each at a time."""
        self._own = Buckets(rate=1 / 12, burst=5.0)
        """Of keys."""
        self._guesses = Buckets(rate=1 / 5, burst=GUESSES)
        """Of strangers, by source and account."""
        self._late = Buckets(rate=1 / Answers.LATE, burst=MOST_WAITING)
        """Of keys in slow lanes: who sends several before the first is answered gains nothing."""
        self._answers = Answers()

    def __len__(self) -> int:
        return sum(map(len, self._turns))

    @property
    def is_slow(self) -> bool:
        """Whether some wait whose turn comes though nothing else happens, after SLOW_TURN."""
        return bool(self._slow)

    def join(self, attempt: Attempt[T], now: float) -> Attempt[T] | None:
        """It waits from now on. Returns a known user's that gives way if too many wait, which may
        be this one. A stranger's that gives way is told of its failure when it is due. Raises
        Refused if its key has failed too often."""
        attempt.since = now
        if attempt.is_new:
            return self._new.join(attempt)
        key, pair = attempt.key, _pair(attempt)
        if not self._own.take(key, now):
            raise too_many("Too many sign-ins with this key have failed")
        attempt.rank = self._own.used(key, now)
        if attempt.user:
            return self._known.join(attempt)
        attempt.slow = not self._guesses.take(pair, now)
        lanes = self._strangers
        if attempt.slow:
            self._own.give_back(key)  # it may not be checked
            lanes = self._slow
            attempt.rank += self._late.used(key, now)
            self._late.take(key, now)
            attempt.failure = too_many_from_here()
        else:
            attempt.place = self._answers.join(attempt.account)
            if not attempt.place:
                attempt.failure = too_many("Too many sign-ins are being tried")
        attempt.due = self._due(attempt)
        (lanes if attempt.exists else self._nobody).join(attempt)
        return None

    def next(self, now: float) -> tuple[Attempt[T], Refused | None] | None:
        """The one to be checked now until `ended`, or a known user's to be refused without; None
        if there is none, or no room."""
        if len(self._busy) >= AT_A_TIME:
            return None
        for lanes in (*self._turns, self._nobody):
            if (attempt := lanes.next(self._busy, now)) is not None:
                if lanes is not self._nobody:
                    self._turns.remove(lanes)
                    self._turns.append(lanes)
                if attempt.user and not attempt.is_new and now - attempt.since > PATIENCE:
                    return attempt, too_many("Too many sign-ins wait to be checked")
                self._busy[attempt.key] = now
                return attempt, None
        return None

    def ended(self, attempt: Attempt[T], now: float, *, failed: bool) -> None:
        self._answers.takes(now - self._busy.pop(attempt.key), now)
        attempt.failed = failed
        if failed or attempt.is_new:
            return
        self._own.forget(attempt.key)
        if not attempt.user and not attempt.slow:
            self._guesses.give_back(_pair(attempt))

    def fails(self, attempt: Attempt[T], now: float) -> bool:
        """A stranger's is due: whether its failure is told now. It waits no longer then, and what
        was right is no failure. Where checks take longer than they did it is due later."""
        for since in self._busy.values():
            self._answers.takes(now - since, now)
        due = self._due(attempt)
        if due > now and attempt.failed is not False:
            attempt.due = due
            return False
        for lanes in (self._strangers, self._slow, self._nobody):
            lanes.leave(attempt)
        if attempt.place:
            self._answers.leave(attempt.account)
        return attempt.failed is not False

    def _due(self, attempt: Attempt[T]) -> float:
        late = self._answers.LATE if attempt.slow else 0.0
        return attempt.since + max(late, self._answers.after(attempt.place))


class Answers:
    """When strangers are told that their sign-in failed.

    All that are to be told count as if each were checked, in their order: by then it is. How long a
    check takes is known in steps, so that nobody sees which were made.
    """

    AFTER, LONGEST = 1.0, 8.0
    """Seconds: not before, and not for others' sake later."""
    MOST = MOST_IN_A_LANE
    """To be told of one account. Who comes after them, or would have to wait for longer, is told
    that there are too many, after AFTER."""
    LATE = 5.0
    """Seconds until those of a slow lane are told."""
    FASTEST, SLOWEST = 0.25, 8.0
    """Seconds that a check is taken to take, at least and at most."""
    OF_LATE = 60.0
    """Seconds until checks that took long are forgotten."""

    def __init__(self) -> None:
        self._open = Counter[str]()
        """By account, those that are to be told."""
        self._check, self._since = self.FASTEST, 0.0
        """How long a check takes, and when one last did."""

    def takes(self, seconds: float, now: float) -> None:
        """A check takes so long."""
        step = self.FASTEST
        while step < min(seconds, self.SLOWEST):
            step *= 2
        if step >= self._check or now - self._since > self.OF_LATE:
            self._check, self._since = step, now

    def join(self, account: str) -> int:
        """Returns the place of one more; 0 if there are too many."""
        place = self._open.total() + 1
        if self._open[account] >= self.MOST or self._turn(place) > self.LONGEST:
            return 0
        self._open[account] += 1
        return place

    def leave(self, account: str) -> None:
        self._open[account] -= 1
        if not self._open[account]:
            del self._open[account]

    def after(self, place: int) -> float:
        """Seconds after which the one in that place is told."""
        return max(self.AFTER, 2 * self._check, min(self.LONGEST, self._turn(place)))

    def _turn(self, place: int) -> float:
        return (1 + place / AT_A_TIME) * self._check


def _pair(attempt: Attempt[T]) -> tuple[str, str]:
    return attempt.source, attempt.account


class TokenTries:
    """How often tokens may be tried: by each known key, and by strangers of each source."""

    def __init__(self) -> None:
        self._tries = Buckets(rate=50.0, burst=500.0)

    def check(self, who: str, now: float) -> None:
        """Raises Refused."""
        if not self._tries.take(who, now):
            raise too_many("Too many tokens are being tried")


def too_many(what: str) -> Refused:
    return Refused(Code.RATE_LIMITED, f"{what}; wait a minute and try again.")


def too_many_from_here() -> Refused:
    return Refused(
        Code.RATE_LIMITED,
        "Too many sign-ins with this address from where you are have failed, so that not all are "
        "checked; try again, perhaps several times, or from another network.",
    )
