"""Which addresses of a peer are dialled, and when. Pure.

They are tried in their order, the one that worked last first. The next is begun when the one
before has failed, or has said nothing for a moment (as of RFC 8305, "Happy Eyeballs"), and the
first that answers stays. When all have failed, they are tried again after a pause that grows with
each round, as long as there is no direct link; if none ever answered, to minutes, since a node may
have others told what it likes.
"""

from __future__ import annotations

from collections.abc import Iterable

STAGGER = 0.3
"""Seconds that an address has before the next one is tried as well."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 15.0
"""Seconds between two rounds."""
PATIENT, LONGEST_IN_VAIN = 30, 300.0
"""Rounds after which that grows further if no address ever answered, and to what."""


class Dialling:
    """Of one peer. All times are seconds of one clock; `due` says when `next` has something."""

    def __init__(self, addresses: Iterable[str], begins: float) -> None:
        self.addresses = tuple(dict.fromkeys(addresses))
        self.error = ""
        """Of the last attempt that failed."""
        self.trying: set[str] = set()
        self._untried = list(self.addresses)
        self._worked = ""
        self._rounds = 0
        self._at: float | None = begins if self.addresses else None
        self._wanted = True

    @property
    def due(self) -> float | None:
        """When `next` is to be called; None if there is nothing to be done."""
        return self._at if self._wanted else None

    def next(self, now: float) -> str | None:
        """The address that is dialled now, if one is."""
        if self.due is None or now < self.due or not self._untried:
            return None
        address = self._untried.pop(0)
        self.trying.add(address)
        self._at = now + STAGGER if self._untried else None
        return address

    def failed(self, address: str, why: str, now: float, chance: float) -> None:
        """An attempt has failed; `chance`, from 0 to 1, spreads the next round."""
        if address not in self.trying:
            return  # of a round that is over
        self.trying.discard(address)
        self.error = f"{address}: {why}"
        if self._untried:
            self._at = now
        elif not self.trying:
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._rounds, 20))
            if not self._worked and self._rounds > PATIENT:
                pause = min(LONGEST_IN_VAIN, pause * 2 ** min(self._rounds - PATIENT, 20))
            self._rounds += 1
            self._begin(now + pause * (0.5 + chance))

    def up(self, address: str = "") -> set[str]:
        """There is a direct link, to this address or from the peer. Returns the attempts that are
        to be given up."""
        given_up = self.trying - {address}
        self.trying.clear()
        self._wanted, self._rounds = False, 0
        self._worked = address or self._worked
        return given_up

    def lost(self, why: str, begins: float) -> None:
        """The direct link is gone."""
        if not self._wanted:
            self.error = why
            self._wanted = True
            self._begin(begins)

    def changed(self, addresses: Iterable[str], begins: float) -> set[str]:
        """The peer has other addresses, or is heard of anew. Returns attempts to be given up."""
        new = tuple(dict.fromkeys(addresses))
        if new == self.addresses:
            return set()
        self.addresses = new
        given_up, self.trying = self.trying, set()
        self._rounds = 0
        self._begin(begins)
        return given_up

    def _begin(self, at: float) -> None:
        """A round."""
        self._untried = sorted(self.addresses, key=lambda one: one != self._worked)
        self._at = at if self._untried else None
