"""Which calls wait until the manager has applied what their attempts wrote before. Pure."""

from __future__ import annotations

from collections.abc import Callable

from manta.protocol.base import Instance


class Settling:
    """`ask` asks for it, of an attempt once at a time; `settled` is to follow.

    What comes about while it is asked for may follow on more writes: that is the next round's.
    """

    def __init__(self, ask: Callable[[Instance], None]) -> None:
        self._ask = ask
        self._rounds: dict[Instance, int] = {}
        """The number of the one that is asked for."""
        self._again: set[Instance] = set()
        """Attempts that want another one."""

    def begin(self, at: Instance) -> int:
        """Returns the number, from 1, of the round that settles all that the attempt wrote."""
        now = self._rounds.get(at)
        if now is not None:
            self._again.add(at)
            return now + 1
        self._rounds[at] = 1
        self._ask(at)
        return 1

    def settled(self, at: Instance) -> int:
        """Returns the number of the round that is over; 0 if none was asked for."""
        now = self._rounds.pop(at, 0)
        if at in self._again:
            self._again.remove(at)
            self._rounds[at] = now + 1
            self._ask(at)
        return now

    def forget(self, at: Instance) -> None:
        """The attempt is over."""
        self._rounds.pop(at, None)
        self._again.discard(at)
