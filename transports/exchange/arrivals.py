"""Which peers have all that they were sent, as who is to end in good order has to know. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class Arrivals:
    def __init__(self, flush: Callable[[str], int]) -> None:
        """`flush` has a peer say that all has come, and returns the number of that."""
        self._flush = flush
        self._have_all: set[str] = set()
        """Peers that have said so since they were sent anything."""
        self._asked: dict[str, int] = {}
        """By peer that is yet to say so: under which number it was asked."""

    def lacking(self, others: Iterable[str]) -> set[str]:
        """Those of the other peers that have not said it."""
        return set(others) - self._have_all

    def flush(self, peer: str) -> None:
        """It was told all that it was sent; it is asked once, while its link is up."""
        if peer not in self._asked:
            self._asked[peer] = self._flush(peer)

    def flushed(self, peer: str, number: int) -> None:
        if self._asked.get(peer) == number:
            self._have_all.add(peer)
            del self._asked[peer]

    def sent(self, peer: str) -> None:
        self._have_all.discard(peer)
        self.forget(peer)

    def sent_to_all(self) -> None:
        self._have_all.clear()
        self._asked.clear()

    def forget(self, peer: str) -> None:
        """What it was asked may not have been heard."""
        self._asked.pop(peer, None)
