"""The ids that libzmq gives to the peers of a ROUTER: a zero and a number of four bytes.

A peer may also choose its own id. libzmq aborts the process when it gives a peer an id that
another one chose before, and it draws the first number from `rand`, which it never seeds: in each
process the ids would be the same. So the number is drawn anew for each context, from the system's
randomness, and whoever bears an id that was chosen loses its connection. What is left is to hit, by
chance, one of four billion numbers while it is the next.
"""

from __future__ import annotations

import ctypes
import itertools
import os
from typing import TYPE_CHECKING

import zmq

if TYPE_CHECKING:
    from manta.transports.zeromq.sockets import Context, Socket

_AHEAD = 65_536
"""How many connections may be given an id before one of them is heard from."""
_endpoints = itertools.count(1)


def new_context(io_threads: int = 1) -> Context:
    """A zmq context whose ROUTERs give ids that nobody can know in advance."""
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))
    return zmq.Context(io_threads)


class RoutingIds:
    """Tells the ids that one ROUTER gave from those that peers chose."""

    def __init__(self, first: bytes) -> None:
        """`first` is the id that it gave first; each later one is greater by one."""
        self._first = _number(first)
        self._given = 0

    @classmethod
    def of(cls, socket: Socket, context: Context) -> RoutingIds:
        """Asks the socket, before it is bound where others can connect."""
        endpoint = f"inproc://manta.first.{next(_endpoints)}"
        socket.bind(endpoint)
        try:
            first = context.socket(zmq.DEALER)
            try:
                first.linger = 0
                first.connect(endpoint)
                first.send(b"")
                name, _ = socket.recv_multipart()
            finally:
                first.close()
        finally:
            socket.unbind(endpoint)
        return cls(name)

    def gave(self, routing_id: bytes) -> bool:
        """Whether the ROUTER gave this id, and no peer chose it."""
        if len(routing_id) != 5 or routing_id[0] != 0:
            return False
        number = (_number(routing_id) - self._first) % 2**32
        if number > self._given + _AHEAD:
            return False
        self._given = max(self._given, number)
        return True


def _number(routing_id: bytes) -> int:
    return int.from_bytes(routing_id[1:], "big")
