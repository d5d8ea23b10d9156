"""What attempts wait for: when it is there, when it can never come, and when its time is over.

Theory of operation. A wait is tried again when something of its topic comes, and looked at when
something has changed that any wait may depend on. One that has no hope is failed only when all who
could have sent what it waits for have said that all has come which they sent (`Flush`): a letter
may be on its way.

Looking at a wait builds no sentence unless it fails: there are as many waits as attempts, and a
roster comes twenty times a second. When the first ends for want of time is the top of a heap.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from manta.transports.exchange import messages
from manta.transports.exchange.letters import Attempt, Shell, Value

ROOM = "room"
"""The first word of a topic: a sender waits for room."""
_STALE = 1_000
"""Ended waits that the heap has at most, beyond as many as there are waits."""


class Request(Protocol):
    """What an attempt asks; answered once."""

    def answer(self, value: Value | None) -> None: ...

    def fail(self, kind: str, sentence: str) -> None:
        """`kind` is a name of manta.light.errors."""


class Outlook(NamedTuple):
    """Of a wait, if what has not come yet is left aside. `error` is a name of manta.light.errors
    if it can never end, else empty; `sentence` says so, or whom it waits for."""

    error: str
    sentence: str


class Names(Protocol):
    """What is known of peers."""

    def name(self, peer: str) -> str:
        """How users call it."""

    def is_lost(self, peer: str) -> bool:
        """Whether nothing will come from it any more in this era."""


@dataclass(eq=False)
class Wait:
    request: Request
    at: Attempt
    timeout: float
    deadline: float
    topic: tuple[str, ...]
    attempt: Callable[[], bool]
    """Answers the request if that is possible now."""
    outlook: Callable[[], Outlook]
    has_hope: Callable[[], bool]
    """Whether its outlook has no error."""
    late: str = "Timeout"
    peer: str = ""
    """Whom it is about, if it is one."""
    sources: Callable[[], Iterable[str]] = tuple
    """Who must have said that all has come which they sent, before nothing more is waited for."""
    flushed: set[str] = field(default_factory=set)


class Waits:
    def __init__(self, me: str, shell: Shell, names: Callable[[], Names]) -> None:
        self._me = me
        self._shell = shell
        self._names = names
        self.up: set[str] = set()
        """Peers whose links are up."""
        self._by_topic: dict[tuple[str, ...], dict[Wait, None]] = {}
        """In the order in which they began."""
        self._for_room: dict[tuple[str, ...], None] = {}
        """The topics of senders."""
        self._by_request: dict[Request, Wait] = {}
        self._deadlines: list[tuple[float, int, Wait]] = []
        """A heap; some of these have ended."""
        self._count = 0
        self._flushes: dict[int, tuple[str, Wait]] = {}
        self._flush_count = 0

    def of(self, at: Attempt) -> list[Wait]:
        return [wait for wait in self._by_request.values() if wait.at == at]

    def all(self) -> list[Wait]:
        return list(self._by_request.values())

    def begin(self, wait: Wait) -> None:
        """Ends it at once, if that is possible."""
        if wait.attempt():
            return
        self._by_topic.setdefault(wait.topic, {})[wait] = None
        if wait.topic[0] == ROOM:
            self._for_room[wait.topic] = None
        self._by_request[wait.request] = wait
        self._count += 1
        heapq.heappush(self._deadlines, (wait.deadline, self._count, wait))
        self._look_at(wait)

    def abandon(self, request: Request) -> bool:
        """Whether it was waited for."""
        wait = self._by_request.get(request)
        if wait is not None:
            self._remove(wait)
        return wait is not None

    def fail(self, wait: Wait, kind: str, sentence: str) -> None:
        self._remove(wait)
        wait.request.fail(kind, sentence)

    # --- time -------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the first wait ends for want of time."""
        while self._deadlines and self._has_ended(self._deadlines[0][2]):
            heapq.heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else None

    def tick(self, now: float) -> None:
        while (due := self.due) is not None and due <= now:
            wait = heapq.heappop(self._deadlines)[2]
            sentence = wait.outlook().sentence.rstrip(".")
            if wait.peer not in ("", self._me) and wait.peer not in self.up:
                sentence += f"; no link to {self._names().name(wait.peer)} could be made"
            self.fail(wait, wait.late, f"Waited {wait.timeout:g} s in vain: {sentence}.")

    def _has_ended(self, wait: Wait) -> bool:
        return self._by_request.get(wait.request) is not wait

    # --- what has changed -------------------------------------------------------------------

    def wake(self, *topic: str) -> None:
        """Tries again those who wait for it."""
        for wait in list(self._by_topic.get(topic, ())):
            if wait.attempt():
                self._remove(wait)

    def wake_senders(self) -> None:
        for topic in list(self._for_room):
            self.wake(*topic)

    def look(self) -> None:
        """Something has changed that any wait may depend on."""
        for wait in list(self._by_request.values()):
            if wait.attempt():
                self._remove(wait)
            else:
                self._look_at(wait)

    def _look_at(self, wait: Wait) -> None:
        """Fails it if it can never end."""
        if wait.has_hope():
            wait.flushed.clear()
            return
        missing = [
            peer
            for peer in wait.sources()
            if peer not in wait.flushed and peer != self._me and not self._names().is_lost(peer)
        ]
        if not missing:
            self.fail(wait, *wait.outlook())
            return
        asked = {peer for peer, of in self._flushes.values() if of is wait}
        for peer in missing:
            if peer in self.up and peer not in asked:
                self._flushes[self.flush(peer)] = peer, wait

    def flush(self, peer: str) -> int:
        """Has the peer, whose link is up, say that all has come; returns the number of that."""
        self._flush_count += 1
        self._shell.tell(peer, messages.Flush(self._flush_count))
        return self._flush_count

    def flushed(self, peer: str, number: int) -> None:
        """A peer has said that all has come. What another was asked it cannot answer."""
        asked, wait = self._flushes.get(number, ("", None))
        if wait is None or asked != peer:
            return
        del self._flushes[number]
        if not self._has_ended(wait):
            wait.flushed.add(peer)
            self._look_at(wait)

    def forget_flushes(self, peer: str) -> None:
        """What was asked may not have been heard."""
        for number, (of, _) in list(self._flushes.items()):
            if of == peer:
                del self._flushes[number]

    def _remove(self, wait: Wait) -> None:
        del self._by_request[wait.request]
        same = self._by_topic[wait.topic]
        del same[wait]
        if not same:
            del self._by_topic[wait.topic]
            self._for_room.pop(wait.topic, None)
        if len(self._deadlines) > 2 * len(self._by_request) + _STALE:
            self._deadlines = [one for one in self._deadlines if not self._has_ended(one[2])]
            heapq.heapify(self._deadlines)
