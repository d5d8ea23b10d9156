"""What the process of a plane has before its plane: sockets, and what the machine allows it."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

from manta.node.peers.known import KnownPeers
from manta.node.plane.local import LocalSocket, shared_folder
from manta.node.plane.plane import DISK
from manta.transports.descriptors import raise_descriptor_limit
from manta.transports.errors import TransportError
from manta.transports.relay.server import RelayingTransport
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair

NICENESS = 5
"""Heartbeats and small asks of who began the process go before."""

log = logging.getLogger("manta.node.plane")


class Endpoints:
    """Of the key pair; `known` are the peers that the plane knows, once there is one."""

    def __init__(self, keys: KeyPair, known: Callable[[], KnownPeers]) -> None:
        self.admission = Admission()
        self.transport = RelayingTransport(
            keys,
            may=lambda key, other: known().share(key, other),
            serves=lambda key: known().is_known(key),
        )
        self.bulk = BulkEndpoint(keys, self.admission)
        self._key = keys.public

    def local(self) -> LocalSocket | None:
        """None where there cannot be one: then others of this machine are linked as all are."""
        try:
            return LocalSocket(self.bulk, shared_folder(), self._key)
        except (OSError, TransportError) as error:
            log.warning("Others on this machine are linked over TCP: %s", error)
            return None

    def close(self) -> None:
        self.transport.close()
        self.bulk.close()


def disk_room(folder: Path) -> int:
    """How many bytes of values may be there; makes the folder. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    disk = os.statvfs(folder)
    return min(DISK, disk.f_bavail * disk.f_frsize // 2)


def set_up(level: int) -> None:
    """Of the whole process."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who began the process
    os.nice(NICENESS)
    raise_descriptor_limit()
