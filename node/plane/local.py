"""Planes of one user's nodes on one machine: how they find each other's Unix sockets.

Each says over the link with a peer, which is authenticated, where its socket is, and on which boot
of which machine and for which user; one that finds itself there, too, connects. The kernel then
vouches for the user at the other end, and the handshake for its key.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from manta.transports.errors import LocalTransportError, TransportError
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.user import check_user

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_SOCKET = "peers.sock"
_LONGEST = 107
"""Bytes of the path of a Unix socket (unix(7))."""


class LocalSocket:
    """Where a plane's peers on this machine connect for bulk. Raises OSError, TransportError.

    It is in `folder`, or in one of the system's temporary folder if that path is too long.
    """

    def __init__(self, bulk: BulkEndpoint, folder: Path) -> None:
        if len(os.fsencode(folder / _SOCKET)) > _LONGEST:
            name = hashlib.blake2b(f"{os.geteuid()} {folder}".encode(), digest_size=8).hexdigest()
            folder = Path("/tmp") / f"manta-{name}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        bulk.listen(f"unix://{folder / _SOCKET}")
        self.place = f"{_here()}:{folder / _SOCKET}"
        """What peers are told."""


def address_of(place: str) -> str | None:
    """The address of a peer's socket, if one of this user's answers there; None if the peer is
    elsewhere, or cannot be reached so."""
    here, _, path = place.partition(":")
    if here != _here() or os.path.basename(path) != _SOCKET:
        return None
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
            check_user(probe)
        except (OSError, ValueError, LocalTransportError):
            return None
    return f"unix://{path}"


def _here() -> str:
    """What only this user's processes have in common, until the machine is started again."""
    try:
        boot = _BOOT.read_text("ascii").strip()
    except OSError as error:
        raise TransportError(f"{_BOOT} cannot be read: {error.strerror}") from error
    return hashlib.blake2b(f"{boot} {os.geteuid()}".encode(), digest_size=16).hexdigest()
