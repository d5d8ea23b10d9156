"""The ids of a ROUTER's peers. libzmq is left to give none, since that can end the process.

It aborts when it gives a peer an id that another peer chose before. Its own have five bytes, a zero
and a number, which it counts up from one that it draws from `rand`, which it never seeds: in each
process they would be the same. So ids here have sixteen bytes, and:

* The answer of the ZAP handler names one (`zap`), whatever the peer chose. If that comes too soon,
  before libzmq has read what the peer chose, that stands.
* Who dials chooses one as well, at random, so that libzmq has none to give.
* Any other id costs the peer its connection with its first message, or some seconds after the
  handshake if there is none. It may dial again.
* `rand` is seeded from the system's randomness before each ROUTER is made.

What is left to chance, each second: (ids like libzmq's that are chosen and held) x (ids that libzmq
gives) / 2**32. Fewer than one in a hundred answers comes too soon. Strangers make 100 handshakes a
second, and each user and node 20: so that is at most 5, who are cut after 5 seconds, and 1.
"""

from __future__ import annotations

import ctypes
import os

_LENGTH = 16


def new_routing_id() -> bytes:
    """One that nobody else has, or knows."""
    return b"m" + os.urandom(_LENGTH - 1)  # libzmq keeps those that begin with a zero for itself


def is_harmless(routing_id: bytes) -> bool:
    """Can it never be one that libzmq gives?"""
    return len(routing_id) == _LENGTH


def seed() -> None:
    """Have the next ROUTER begin with an id that nobody can know in advance."""
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))
