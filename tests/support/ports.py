"""Ports for what a test starts later, or starts again."""

from __future__ import annotations

import random
import socket

_given: set[int] = set()


def free_ports(count: int = 3) -> list[int]:
    """Ports of this machine that are free and stay so: they lie below those that the system gives
    to whoever connects, or asks for any port."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.SystemRandom().randrange(16_384, 32_768)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue  # it is taken
        _given.add(port)
        ports.append(port)
    return ports
