"""The process of a node's plane: `python -m manta.node.plane FD`, begun by the node's daemon.

It ends with its daemon, whose end of the socket is then closed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from functools import partial
from pathlib import Path

from manta.node.peers.book import PeersAnew
from manta.node.plane.orders import (
    Anew,
    Attach,
    Changed,
    End,
    Ended,
    OrderSocket,
    Over,
    Rostered,
    Serve,
    Serving,
    ToPlane,
    Want,
)
from manta.node.plane.plane import DISK, Plane
from manta.protocol.base import Instance
from manta.transports.descriptors import raise_descriptor_limit
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport

NICENESS = 5
"""Heartbeats and small asks of the daemon go before."""

log = logging.getLogger("manta.node.plane")


class Process:
    """The plane and its daemon's orders, from the first on."""

    def __init__(self, orders: OrderSocket[ToPlane], serve: Serve, listening: list[int]) -> None:
        self._orders = orders
        self._begun: set[Instance] = set()
        self.ended = threading.Event()
        keys = KeyPair(serve.public, serve.secret)
        admission = Admission()
        self._transport = ZmqTransport(keys)
        self._bulk = BulkEndpoint(keys, admission)
        bulk_at = self._bulk.listen("tcp://0.0.0.0:0") if serve.listens else ""
        self._plane = Plane(
            serve.node_id,
            self._transport,
            self._bulk,
            admission,
            self,
            bulk_port=int(bulk_at.rpartition(":")[2] or 0),
            memory=serve.memory,
            folder=Path(serve.folder),
            disk=_disk(Path(serve.folder)),
        )
        for fd in listening:
            name = socket.socket(fileno=os.dup(fd))
            host, port = name.getsockname()[:2]
            name.close()
            self._transport.listen(f"tcp://{host}:{port}", self._plane.links, admission, fd=fd)
        self._transport.call_soon(self._begin)

    def want_roster(self, swarm_id: str, wanted: bool) -> None:
        self._orders.send(Want(swarm_id, wanted))

    def close(self) -> None:
        self._transport.call_soon(self._plane.close)
        self._transport.close()
        self._bulk.close()

    def _begin(self) -> None:
        self._transport.io.add_reader(self._orders.fileno(), self._read)
        self._orders.send(Serving())
        self._take_all()  # what came along with the first order

    def _take_all(self) -> None:
        while (order := self._orders.next()) is not None:
            self._carry_out(*order)

    def _read(self) -> None:
        try:
            self._orders.read()
            self._take_all()
        except (EOFError, OSError):
            self._transport.io.remove_reader(self._orders.fileno())
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
            case Attach(at):
                if at not in self._begun:
                    self._begun.add(at)
                    plane.begin(at)
                plane.attach(at, fds[0])
            case End(at, counts):
                self._begun.discard(at)
                plane.end(at, counts=counts, then=partial(self._orders.send, Ended(at)))
            case Serve():
                log.error("The daemon says twice who the node is.")


def _disk(folder: Path) -> int:
    """How many bytes of values may be there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = os.statvfs(folder)
    return min(DISK, disk.f_bavail * disk.f_frsize // 2)


def main() -> int:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the daemon
    os.nice(NICENESS)
    raise_descriptor_limit()
    orders: OrderSocket[ToPlane] = OrderSocket(socket.socket(fileno=int(sys.argv[1])), ToPlane)
    try:
        while (first := orders.next()) is None:
            orders.read()
    except EOFError:  # the daemon has ended already
        return 0
    serve, fds = first
    assert isinstance(serve, Serve)
    process = Process(orders, serve, fds)
    process.ended.wait()
    process.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
