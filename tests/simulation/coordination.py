"""Peers of a mesh that coordinate: machines in virtual time, with loss, deaths and partitions.

The mesh's membership is played: each peer learns at its own time, within `news` seconds, whom it
can reach no more and whom again, and suspects some wrongly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol

from manta.mesh.coordination.events import Joined, Left, Received, Send, Tick
from tests.simulation.network import Clock

NEWS = 2.0


class Machine(Protocol):
    due: float | None

    def handle(self, event: Any, now: float) -> list[Any]: ...


class Net:
    """`make` makes the machine of a peer; `perform` is given each action but a Send."""

    def __init__(
        self,
        seed: int,
        names: Iterable[str],
        make: Callable[[str], Machine],
        perform: Callable[[str, Any], None],
        loss: float = 0.0,
        news: float = NEWS,
    ) -> None:
        self.clock = Clock(seed)
        self.random = self.clock.random
        self.loss = loss
        self.news = news
        self.sent: Counter[str] = Counter()
        self.views: dict[str, set[str]] = {}
        """Whom each peer counts alive, besides itself."""
        self.dead: set[str] = set()
        self._sides: list[set[str]] = []
        self._perform = perform
        self.machines = {name: make(name) for name in names}

    def start(self) -> None:
        """Each peer learns of each other at its own time."""
        self.views = {name: set() for name in self.machines}
        for name in self.machines:
            self.tell(name, Tick())
        self._news()

    @property
    def living(self) -> list[str]:
        return [name for name in self.machines if name not in self.dead]

    def tell(self, name: str, event: Any) -> None:
        if name in self.dead:
            return
        machine = self.machines[name]
        if isinstance(event, Joined | Left):
            change = set.add if isinstance(event, Joined) else set.discard
            change(self.views[name], event.peer)
        if not isinstance(event, Tick):
            self.clock.note(name, event)
        for action in machine.handle(event, self.clock.now):
            if isinstance(action, Send):
                self._send(name, action.peer, action.message)
            else:
                self.clock.note(name, action)
                self._perform(name, action)
        if machine.due is not None:
            delay = max(0.0, machine.due - self.clock.now) + 1e-6
            self.clock.after(delay, partial(self._tick, name))

    def _tick(self, name: str) -> None:
        due = self.machines[name].due
        if due is not None and due <= self.clock.now:
            self.tell(name, Tick())

    def _send(self, sender: str, peer: str, message: Any) -> None:
        self.sent[type(message).__name__] += 1
        for _ in range(2 if self.random.random() < self.loss / 2 else 1):
            if self.random.random() >= self.loss:
                late = 1.0 if self.random.random() < self.loss else 0.05
                self.clock.soon(late, partial(self._arrive, sender, peer, message))

    def _arrive(self, sender: str, peer: str, message: Any) -> None:
        if self.reaches(sender, peer) and peer not in self.dead:
            self.tell(peer, Received(sender, message))

    # --- what goes wrong ----------------------------------------------------------------------

    def reaches(self, one: str, other: str) -> bool:
        """What a peer has sent before its death may arrive after it."""
        return all((one in side) == (other in side) for side in self._sides)

    def kill(self, name: str) -> None:
        self.clock.note(name, "is killed")
        self.dead.add(name)
        self._news()

    def part(self, *sides: set[str]) -> None:
        self.clock.note("net", f"is parted: {sides}")
        self._sides = list(sides)
        self._news()

    def heal(self) -> None:
        self.part()

    def suspect(self, name: str, peer: str) -> None:
        """Wrongly, for a while."""
        self.tell(name, Left(peer))
        self.clock.soon(self.news, partial(self._see, name, peer))

    def _news(self) -> None:
        for name in self.living:
            for peer in self.machines:
                if peer != name:
                    self.clock.soon(self.news, partial(self._see, name, peer))

    def _see(self, name: str, peer: str) -> None:
        is_there = peer not in self.dead and self.reaches(name, peer)
        if is_there != (peer in self.views[name]):
            self.tell(name, Joined(peer) if is_there else Left(peer))

    def is_told(self) -> bool:
        """Whether each peer knows whom it can reach."""
        return all(
            self.views[name]
            == {one for one in self.living if one != name and self.reaches(name, one)}
            for name in self.living
        )

    # --- time ---------------------------------------------------------------------------------

    def run(self, seconds: float, done: Callable[[], bool] = lambda: False) -> bool:
        """Until then, or until it is done; says whether it was."""
        until, over = self.clock.now + seconds, []
        self.clock.after(seconds, lambda: over.append(True))
        self.clock.run(lambda: bool(over) or done())
        assert self.clock.now <= until + 1e-6
        return done()
