"""Where a task may connect to: it listens there itself, in a network of its own, before any code of
its user's runs, and whoever has the sockets accepts on them, wherever that is."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable

_BACKLOG = 64


def hand_over(ways: Iterable[tuple[str, int]], other: socket.socket) -> None:
    """Listens at these addresses and ports, and sends the sockets, in order. Raises OSError."""
    listening: list[socket.socket] = []
    try:
        for at in ways:
            one = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listening.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(tuple(at))
            one.listen(_BACKLOG)
        socket.send_fds(other, [b"."], [one.fileno() for one in listening])
    finally:
        for one in listening:
            one.close()


def hand_over_at(path: str, ways: str) -> None:
    """To whoever listens at a Unix socket; `ways` in JSON. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
        other.connect(path)
        hand_over(json.loads(ways), other)
