"""What the attempts of a scenario do: each sends, receives and hears what is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manta.node.plane.requests import (
    HearBroadcast,
    PlaneRequest,
    ReceiveLetter,
    SayToAll,
    SendLetter,
)
from manta.protocol.base import Instance
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel
from tests.simulation.exchange_planes import Asked, Plane

if TYPE_CHECKING:
    from tests.simulation.exchange import Node

FOREVER = 1e9


@dataclass
class Letter:
    """What a letter says: which one it is."""

    era: int
    sender: int
    to: str
    tag: str
    serial: int


class Program:
    """An attempt. It sends on one thread, and then receives and hears on others; where there is
    hardly room, at the same time."""

    def __init__(self, node: Node, at: Instance, plane: Plane) -> None:
        self.node, self.at, self.plane = node, at, plane
        self.scenario, self.clock = node.scenario, node.clock
        self.got: list[tuple[str, Letter]] = []
        self.is_over = False
        self.is_ending = False
        self.is_kept = False
        """What it said is on disk, and its end is not yet."""
        self._receiving: list[list[tuple[PlaneRequest, Value | None]]] = []
        for source in self.scenario.names:
            for tag in self.scenario.tags:
                count = self.scenario.share(at.iteration, at.index, source)
                asked = [
                    ReceiveLetter(n=1, source=source, tag=tag, number=number, timeout=FOREVER)
                    for number in range(count)
                ]
                self._receiving.append([(one, None) for one in asked])
        ranks = range(self.scenario.size)
        heard = [HearBroadcast(n=1, tag=f"m{rank}", timeout=FOREVER) for rank in ranks]
        self._receiving.append([(one, None) for one in heard])
        self._open = 1
        if self.scenario.is_narrow:
            self._receive()
        self._go_on(self._to_send(), 0)

    def _to_send(self) -> list[tuple[PlaneRequest, Value | None]]:
        todo: list[tuple[PlaneRequest, Value | None]] = []
        for serial in range(self.scenario.each):
            for to in self.scenario.names:
                for tag in self.scenario.tags:
                    letter = Letter(self.at.iteration, self.at.index, to, tag, serial)
                    request = SendLetter(n=1, to=to, tag=tag, value=b"", timeout=FOREVER)
                    todo.append((request, self._value(letter)))
        said = f"{self.at.iteration} {self.at.index}".encode()
        return [(SayToAll(n=1, tag=f"m{self.at.index}", value=b""), said), *todo]

    def _value(self, letter: Letter) -> Value:
        """A large one of each attempt is another one."""
        random = self.clock.random
        id_ = random.randbytes(16)
        self.scenario.values[id_] = letter
        if (letter.serial + letter.sender) % 3 == 0:
            return Parcel(id_, 1 << 20)
        return id_

    def _go_on(self, thread: list[tuple[PlaneRequest, Value | None]], at: int) -> None:
        if self.is_over or not self.plane.is_alive:
            return
        if at == len(thread):
            self._receive()
            self._open -= 1
            if not self._open:
                self.node.finished(self)
            return
        body, value = thread[at]
        is_done = False

        def ended(answer: Any, error: str) -> None:
            nonlocal is_done
            assert not is_done, "it was answered twice"
            is_done = True
            if self.is_over or not self.plane.is_alive:
                return
            if error.startswith("UnknownPeer") and self.scenario.network and self.scenario.is_late:
                self.clock.soon(1.0, lambda: self._go_on(thread, at))  # nobody is placed there yet
                return
            if error and self.scenario.is_narrow and self._is_own(body):
                self.clock.soon(1.0, lambda: self._go_on(thread, at))  # it is yet to be said
                return
            assert not error, f"{self.at} on {self.node.name}: {body}: {error}"
            if isinstance(body, ReceiveLetter):
                letter = self.scenario.values[answer]
                assert self.scenario.place(letter.sender) == body.source
                assert (letter.to, letter.tag) == (self.node.name, body.tag)
                self._check_order(letter)
                self.got.append((body.tag, letter))
            elif isinstance(body, HearBroadcast):
                assert answer == f"{self.at.iteration} {body.tag[1:]}".encode()
            self.clock.soon(self.scenario.pace, lambda: self._go_on(thread, at + 1))

        asked = Asked(self.plane, self.at, body, value, ended)
        self.clock.soon(0.05, lambda: self._ask(asked))

    def _is_own(self, body: PlaneRequest) -> bool:
        """Whether it may be about what this attempt says alone, which nobody waits for."""
        match body:
            case ReceiveLetter(source=source):
                return source == self.node.name
            case HearBroadcast(tag=tag):
                return tag == f"m{self.at.index}"
            case _:
                return False

    def _receive(self) -> None:
        threads, self._receiving = self._receiving, []
        self._open += len(threads)
        for one in threads:
            self._go_on(one, 0)

    def _check_order(self, letter: Letter) -> None:
        """Where others receive as well, what one of them gives back may come late."""
        if len(self.scenario.on(self.node.name)) == 1:
            who = letter.sender, letter.tag
            before = [one for _, one in self.got if (one.sender, one.tag) == who]
            assert all((one.era, one.serial) < (letter.era, letter.serial) for one in before)

    def _ask(self, asked: Asked) -> None:
        if not self.is_over and self.plane.is_alive:
            if isinstance(asked.value, Parcel):
                self.plane.held.add(asked.value.id)
            self.plane.swarm.ask(asked, self.clock.now)
