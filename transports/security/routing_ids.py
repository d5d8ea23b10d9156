"""The ids of a ROUTER's peers: this side makes them, so that no peer chooses or knows one.

libzmq aborts the process when it gives a peer an id that another peer chose before. It counts its
ids from a number that it draws from `rand`, which it never seeds: in each process they would be
the same. So it is left to give none, and none that anybody knows:

* The answer of the ZAP handler names the id (`zap`), whatever the peer chose.
* An id that was not made here costs the peer its connection with its first message, or some
  seconds after the handshake if there is none. The answer came too soon: libzmq read the peer's
  choice after it, or gave an id to a peer that made none. Such a peer dials again.
* `rand` is seeded from the system's randomness before each ROUTER is made.

What is left to chance, each second: (chosen ids that are held) x (ids that libzmq gives) / 2**32.
Fewer than one in a hundred answers comes too soon. Strangers make 100 handshakes a second, and
each user and node 20: so that is at most 5 and 1 of strangers, who are cut after 5 seconds.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable

_RANDOM, _MARK = 8, 8  # bytes


class RoutingIds:
    """Makes ids, and tells them from those that peers chose or libzmq gave, without keeping any."""

    def __init__(self, random: Callable[[int], bytes] = os.urandom) -> None:
        self._random = random
        self._secret = random(32)

    def make(self) -> bytes:
        name = self._random(_RANDOM)
        return name + self._mark(name)

    def made(self, routing_id: bytes) -> bool:
        """Is it one of these?"""
        name, mark = routing_id[:_RANDOM], routing_id[_RANDOM:]
        return len(mark) == _MARK and mark == self._mark(name)

    def _mark(self, name: bytes) -> bytes:
        return hashlib.blake2b(name, key=self._secret, digest_size=_MARK).digest()


def seed() -> None:
    """Have the next ROUTER begin with an id that nobody can know in advance."""
    ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "little")))
