"""Planes of one user's nodes on one machine: how they find each other's Unix sockets.

Each has one in a folder that all of this user's on this machine share, under a name that follows
from its key. Over the link with a peer, which is authenticated, each says a mark that only who is
on the same boot of the same machine can make for these two keys; where it is right, who dials looks
for the other's socket. The kernel then vouches for the user at the other end, and the handshake for
its key. So nobody is told of a path, or of what machine a node is on, who does not share it.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import time
from contextlib import suppress
from pathlib import Path

from manta.transports.errors import LocalTransportError, TransportError
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.user import check_user
from manta.transports.security.keys import make_private_folder

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NEW = 60.0
"""Seconds for which a socket may be there before it is listened at."""


class LocalSocket:
    """Where a plane's peers on this machine connect for bulk. Raises OSError, TransportError."""

    def __init__(self, bulk: BulkEndpoint, folder: Path, own_key: str) -> None:
        """`folder`: the same for all that are to find each other."""
        self._folder = folder
        self._own_key = own_key
        try:
            self._boot = _BOOT.read_text("ascii").strip()
        except OSError as error:
            raise TransportError(f"{_BOOT} cannot be read: {error.strerror}") from error
        make_private_folder(folder)
        _sweep(folder)
        bulk.listen(self._address(own_key))

    def mark(self, key: str) -> str:
        """What the peer with that key is told."""
        return self._mark(self._own_key, key)

    def find(self, key: str, mark: str) -> str | None:
        """The address of a peer's socket, of what mark it told, if one of this user's answers
        there; None if the peer is elsewhere, or cannot be reached so."""
        if not hmac.compare_digest(mark.encode(), self._mark(key, self._own_key).encode()):
            return None
        address = self._address(key)
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            try:
                probe.connect(address.removeprefix("unix://"))
                check_user(probe)
            except (OSError, LocalTransportError):
                return None
        return address

    def _mark(self, teller: str, told: str) -> str:
        named = f"{self._boot} {os.geteuid()} {teller} {told}".encode()
        return hashlib.blake2b(named, digest_size=16).hexdigest()

    def _address(self, key: str) -> str:
        name = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
        return f"unix://{self._folder / name}"


def _sweep(folder: Path) -> None:
    """Takes away the sockets of planes that were killed, at which nobody listens any more."""
    for path in folder.iterdir():
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            probe.setblocking(False)
            try:
                probe.connect(os.fspath(path))
            except ConnectionRefusedError:
                if time.time() - path.stat().st_mtime > _NEW:  # else one that is about to listen
                    path.unlink()


def shared_folder() -> Path:
    """That of all of this user's planes on this machine."""
    user = os.geteuid()
    runtime = Path(f"/run/user/{user}")  # pam_systemd(8)
    return (runtime if os.access(runtime, os.W_OK) else Path("/tmp")) / f"manta-{user}"
