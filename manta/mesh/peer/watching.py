"""How a peer's process looks at yours, over the socket that both have and in /proc."""

from __future__ import annotations

import os
import socket
import struct

_CREDENTIALS = struct.Struct("3i")
"""Process, user and group (unix(7))."""


def sender_of(sock: socket.socket) -> int:
    """The id of the process that has sent what is to be read next, as it is called here, also where
    it is in a container; 0 if that can't be known. Waits until something has come.

    Whoever made the sockets has set SO_PASSCRED on this one before that was sent: a sender in
    gVisor can't set it on its own."""
    try:
        space = socket.CMSG_SPACE(_CREDENTIALS.size)
        _, ancillary, _, _ = sock.recvmsg(1, space, socket.MSG_PEEK)
    finally:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            pid: int = _CREDENTIALS.unpack(data)[0]
            return pid
    return 0


def runs(pid: int) -> bool:
    """Whether a thread of the process runs, or waits for the CPU."""
    if pid <= 0:
        return False
    try:
        return any(_state(f"/proc/{pid}/task/{one}/stat") == "R" for one in _tasks(pid))
    except OSError:
        return False  # it has ended


def _tasks(pid: int) -> list[str]:
    return os.listdir(f"/proc/{pid}/task")


def _state(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().rpartition(") ")[2][:1]
