"""How the transfers of collectives are named between two planes. Pure."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from manta.node.plane.collectives.messages import CallName, Places


def transfer_id(swarm_id: str, epoch: str, call: CallName, places: Places, key: str) -> bytes:
    """16 bytes, the same at both ends: the transfer's key names sender, receiver and round.

    None is given twice: a call that is begun anew has later places.
    """
    named = _of_call(swarm_id, epoch, call, places).copy()
    named.update(_part(key))
    return named.digest()


@lru_cache(maxsize=64)
def _of_call(swarm_id: str, epoch: str, call: CallName, places: Places) -> blake2b:
    """What the ids of all of its transfers begin with."""
    numbers = (call.era, call.number, *places.order)
    parts = (swarm_id, epoch, call.task, *map(str, numbers))
    return blake2b(b"".join(map(_part, parts)), digest_size=16)


def _part(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return len(data).to_bytes(4, "little") + data
