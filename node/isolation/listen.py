"""`python -m manta.node.isolation.listen FD WAYS PROGRAM...`: listens where a task will connect to,
in the network that is the task's own, gives the sockets away, then becomes the program.

WAYS is JSON: an address and a port each. Whoever has the other end of the Unix socket FD accepts on
the sockets, in order, wherever it is: so the task connects to its loopback, and what answers is
outside. An address that is not of 127.0.0.0/8 is added to the loopback. For that, and for ports
below 1024, the process has capabilities, which it gives up before the program runs.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final

from manta.node.isolation import privileges
from manta.node.isolation.enter import REFUSED

CAPABILITIES: Final = ("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_SETPCAP")
"""The last, so that none is left in the bounding set."""
_BACKLOG = 64
_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C  # of linux/sockios.h
_ALL_BITS = "255.255.255.255"


def command(fd: int, ways: Iterable[tuple[str, int]], program: Iterable[str]) -> list[str]:
    """What is started instead of a program."""
    listens = [sys.executable, "-m", "manta.node.isolation.listen"]
    return [*listens, str(fd), json.dumps(list(ways)), *program]


def _add_address(address: str, number: int) -> None:
    """To the loopback, with nothing around it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, _ALL_BITS)):
            where = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s8x", b"lo:%d" % number, where))


def _listening(ways: Iterable[tuple[str, int]]) -> list[socket.socket]:
    found: list[socket.socket] = []
    added: set[str] = set()
    for address, port in ways:
        if not address.startswith("127.") and address not in added:
            added.add(address)
            _add_address(address, len(added))
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, port))
        one.listen(_BACKLOG)
        found.append(one)
    return found


def main(arguments: list[str]) -> int:
    """Returns only if it fails."""
    fd, ways, *program = arguments
    try:
        listening = _listening(json.loads(ways))
        with socket.socket(fileno=int(fd)) as other:
            socket.send_fds(other, [b"."], [one.fileno() for one in listening])
        for one in listening:
            one.close()
        privileges.drop()
        os.execv(program[0], program)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
