"""The ids that libzmq gives to the peers of a ROUTER: a zero and a number of four bytes.

A peer may also choose its own id. libzmq aborts the process when it gives a peer an id that
another one chose before, and it draws the first number from `rand`, which it never seeds: in each
process the ids would be the same. Three things keep a peer from holding an id that is yet to come:

* The answer of the ZAP handler replaces what the peer chose (`security.zap`).
* A choice that stands nevertheless, since that answer came too soon, costs the peer its connection
  with its first message, or some seconds after the handshake if there is none.
* The first number is drawn anew for each context, from the system's randomness.

What is left to chance, each second: (chosen ids that are held) x (ids given) / 2**32. Strangers
make 100 handshakes a second, 20 of them from one address, of which fewer than one in a hundred
keeps its choice, for 5 seconds.
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
_ZERO_COPY_RECV = 10  # a context option that pyzmq has no name for
_endpoints = itertools.count(1)


def new_context(io_threads: int = 1) -> Context:
    """The one place where a zmq context is made.

    Its ROUTERs give ids that nobody can know in advance, and a small frame is copied from the
    buffer of 8 KiB in which it came: else one that is held would hold all of it.
    """
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))
    context: Context = zmq.Context(io_threads)
    context.set(_ZERO_COPY_RECV, 0)
    return context


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
