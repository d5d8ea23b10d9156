"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import os
import socket
import struct

from manta.transports.errors import LocalTransportError

_CREDENTIALS = struct.Struct("=iII")  # struct ucred (unix(7))


def check_user(stream: socket.socket) -> None:
    """Raises LocalTransportError unless this very user is at the other end."""
    if not hasattr(socket, "SO_PEERCRED"):
        raise LocalTransportError("unsealed bulk needs Linux, which vouches for who is at a socket")
    sent = stream.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    user = _CREDENTIALS.unpack(sent)[1]
    if user != os.geteuid():
        raise LocalTransportError(
            f"user id {user} is at the other end of a local socket, and this is {os.geteuid()}'s"
        )
