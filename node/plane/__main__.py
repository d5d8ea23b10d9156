"""The process of a node's plane: `python -m manta.node.plane FD`, begun by the node's daemon.

It ends with its daemon, whose end of the socket is then closed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path

from manta.node.peers.book import PeersAnew
from manta.node.plane.endpoints import Endpoints, disk_room, set_up
from manta.node.plane.folder_lock import take_over
from manta.node.plane.orders import (
    Anew,
    Attach,
    Broke,
    Changed,
    End,
    Ended,
    Forget,
    Linked,
    Lost,
    OrderSocket,
    Over,
    Rostered,
    Serve,
    Serving,
    Settle,
    Settled,
    Stopped,
    Summed,
    ToDaemon,
    ToPlane,
    Want,
)
from manta.node.plane.plane import Plane
from manta.protocol.base import Instance
from manta.protocol.peers import LinksTold
from manta.transports.addresses import join_address
from manta.transports.security.keys import KeyPair

PATIENCE = 20.0
"""Seconds for which it waits for another that has its folder, whose daemon is gone."""
ENDING = 15
"""Seconds from the end of its daemon to its own, whatever it does."""

log = logging.getLogger("manta.node.plane")


class Process:
    """The plane and its daemon's orders, from the first on."""

    def __init__(self, orders: OrderSocket[ToPlane], serve: Serve, listening: list[int]) -> None:
        self._orders = orders
        self._begun: set[Instance] = set()
        self.ended = threading.Event()
        ends = self._ends = Endpoints(
            KeyPair(serve.public, serve.secret), lambda: self._plane.known
        )
        where = [_address_of(fd) for fd in listening]
        if len(where) > 1:
            ends.bulk.listen(join_address(*where[1]), fd=listening[1])
        self._plane = Plane(
            serve.node_id,
            ends.transport,
            ends.bulk,
            ends.admission,
            self,
            bulk_port=where[1][1] if len(where) > 1 else 0,
            over_links=serve.over_links,
            memory=serve.memory,
            local=ends.local() if serve.is_local else None,
            relay=serve.relay,
            folder=Path(serve.folder),
            disk=disk_room(Path(serve.folder)),
        )
        if serve.listens:
            links, address = self._plane.links, join_address(*where[0])
            ends.transport.listen(address, links, ends.admission, fd=listening[0])
        ends.transport.call_soon(self._begin)

    def want_roster(self, swarm_id: str, wanted: bool) -> None:
        self._say(Want(swarm_id, wanted))

    def settle(self, at: Instance) -> None:
        self._say(Settle(at))

    def broke(self, at: Instance, why: str) -> None:
        self._say(Broke(at, why))

    def stopped(self, at: Instance, size: int, why: str) -> None:
        self._say(Stopped(at, size, why))

    def summed(self, at: Instance, size: int) -> None:
        self._say(Summed(at, size))

    def _say(self, order: ToDaemon) -> None:
        with contextlib.suppress(OSError):  # the daemon has ended: reading finds out as well
            self._orders.send(order)

    def lost(self, at: Instance, how: str) -> None:
        self._say(Lost(at, how))

    def links_changed(self, links: LinksTold) -> None:
        self._say(Linked(links))

    def close(self) -> None:
        self._ends.transport.call_soon(self._plane.close)
        self._ends.close()

    def _begin(self) -> None:
        self._ends.transport.io.add_reader(self._orders.fileno(), self._read)
        self._say(Serving())
        self._take_all()  # what came along with the first order

    def _take_all(self) -> None:
        """One that fails is no reason to leave those behind it."""
        while (found := self._orders.next()) is not None:
            order, fds = found
            try:
                self._carry_out(order, fds)
            except Exception:
                log.exception("An order of the daemon failed: %s", type(order).__name__)

    def _read(self) -> None:
        try:
            self._orders.read()
            self._take_all()
        except (EOFError, OSError):
            self._ends.transport.io.remove_reader(self._orders.fileno())
            self.ended.set()

    def _carry_out(self, order: ToPlane, fds: list[int]) -> None:
        plane = self._plane
        match order:
            case Anew(directories, rosters):
                plane.told(PeersAnew(directories, rosters))
            case Changed(directory):
                plane.told(directory)
            case Over(directory):
                plane.told(directory)
            case Rostered(roster):
                plane.told(roster)
            case Forget(swarm_ids):
                plane.forget(swarm_ids)
            case Attach(at, sums):
                plane.attach(at, fds[0])  # first: whatever fails, what it asks is answered
                if at not in self._begun:
                    plane.begin(at, sums)
                    self._begun.add(at)
            case End(at, counts, is_gone):
                self._begun.discard(at)
                told = partial(self._say, Ended(at))
                plane.end(at, counts=counts, is_gone=is_gone, then=told)
            case Settled(at):
                plane.settled(at)
            case Serve():
                log.error("The daemon says twice who the node is.")


def _address_of(fd: int) -> tuple[str, int]:
    """Where a socket listens."""
    with socket.socket(fileno=os.dup(fd)) as copy:
        host, port, *_ = copy.getsockname()
    return host, port


def main() -> int:
    set_up(logging.INFO)
    orders: OrderSocket[ToPlane] = OrderSocket(socket.socket(fileno=int(sys.argv[1])), ToPlane)
    try:
        while (first := orders.next()) is None:
            orders.read()
    except EOFError:  # the daemon has ended already
        return 0
    serve, fds = first
    assert isinstance(serve, Serve)
    lock = take_over(Path(serve.folder), PATIENCE)
    if lock is None:
        log.error("Another plane has had %s for %g s: it is to end.", serve.folder, PATIENCE)
        return 1
    process = Process(orders, serve, fds)
    process.ended.wait()
    signal.alarm(ENDING)
    process.close()
    os.close(lock)
    return 0


if __name__ == "__main__":
    sys.exit(main())
