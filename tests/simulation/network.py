"""Links that lose, delay, double and reorder messages, and go down and up again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from manta.transports.errors import DownReason, LinkDown
from tests.simulation.world import World


@dataclass
class Faults:
    loss: float = 0.0
    doubling: float = 0.0
    reordering: float = 0.0
    delay: tuple[float, float] = (0.001, 0.005)
    late: tuple[float, float] = (0.5, 3.0)
    """How long a message that is reordered is held back."""


SILENCE = (1.0, 2.0)
"""Seconds until both sides notice that a link is cut."""
REDIAL = (0.0, 0.3)


class End:
    """One side of a connection, as its owner sees it."""

    def __init__(self, network: Network, name: str, handler: Any) -> None:
        self.network, self.name, self.handler = network, name, handler
        self.up = True
        self.peer: End
        self.last = 0.0

    def send(self, data: bytes) -> None:
        if not self.up:
            raise LinkDown("the link is down", DownReason.SILENT)
        self.network.carry(self, data)

    def drop(self, reason: DownReason) -> None:
        if self.up:
            self.up = False
            self.handler.link_down(self, reason)


class Dialled:
    """A link that heals itself as long as it is not closed."""

    def __init__(self, network: Network, name: str, handler: Any) -> None:
        self.network, self.name, self.handler = network, name, handler
        self.end: End | None = None
        self.closed = False
        self._try()

    def _try(self) -> None:
        if self.closed:
            return
        self.end = self.network.connect(self)
        if self.end is None:
            self.network.world.after(self.network.world.between(*REDIAL), self._try)

    def link_up(self, end: End) -> None:
        self.handler.link_up(end)

    def link_down(self, end: End, reason: DownReason) -> None:
        if self.closed or end is not self.end:
            return
        self.end = None
        self.handler.link_down(end, reason)
        self.network.world.after(self.network.world.between(*REDIAL), self._try)

    def received(self, end: End, data: bytes) -> None:
        if not self.closed:
            self.handler.received(end, data)

    def close(self) -> None:
        self.closed = True
        if self.end is not None:
            self.network.abandon(self.end)


class Network:
    """Nodes dial the one server there is."""

    def __init__(self, world: World, faults: Faults) -> None:
        self.world, self.faults = world, faults
        self.cut: set[str] = set()
        self.server: Any = None
        self.ends: dict[str, End] = {}
        """The server's end of each live connection, by the client's name."""

    def listen(self, handler: Any) -> None:
        self.server = handler

    def server_crashed(self) -> None:
        self.server = None
        for end in self.ends.values():
            end.up = False
            self._notice(end.peer)
        self.ends.clear()

    def connect(self, dialled: Dialled) -> End | None:
        if self.server is None or dialled.name in self.cut:
            return None
        old = self.ends.pop(dialled.name, None)
        if old is not None:
            old.drop(DownReason.CLOSED)
        client, server = End(self, dialled.name, dialled), End(self, dialled.name, self.server)
        client.peer, server.peer = server, client
        self.ends[dialled.name] = server
        self.world.after(0, lambda: server.up and server.handler.link_up(server))
        self.world.after(0, lambda: client.up and dialled.link_up(client))
        return client

    def abandon(self, client: End) -> None:
        """The client is gone without a word."""
        client.up = False
        self._notice(client.peer)

    def cut_off(self, name: str) -> None:
        self.cut.add(name)
        self.world.note("network", f"{name} is cut off")
        end = self.ends.get(name)
        if end is not None:
            self._notice(end)
            self._notice(end.peer)

    def flap(self, name: str) -> None:
        """Both sides notice at once."""
        end = self.ends.pop(name, None)
        if end is not None:
            end.drop(DownReason.CLOSED)
            end.peer.drop(DownReason.CLOSED)

    def heal(self, name: str) -> None:
        if name in self.cut:
            self.world.note("network", f"{name} is back")
            self.cut.discard(name)

    def _notice(self, end: End) -> None:
        def drop() -> None:
            if self.ends.get(end.name) is end:
                del self.ends[end.name]
            end.drop(DownReason.SILENT)

        self.world.after(self.world.between(*SILENCE), drop)

    def carry(self, sender: End, data: bytes) -> None:
        faults, world = self.faults, self.world
        if sender.name in self.cut or world.chance(faults.loss):
            return
        for _ in range(2 if world.chance(faults.doubling) else 1):
            at = world.now + world.between(*faults.delay)
            if world.chance(faults.reordering):
                at += world.between(*faults.late)
            else:
                at = sender.last = max(at, sender.last)
            world.after(at - world.now, self._deliver, sender.peer, data)

    def _deliver(self, receiver: End, data: bytes) -> None:
        if receiver.up and receiver.name not in self.cut:
            receiver.handler.received(receiver, data)
