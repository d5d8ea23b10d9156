"""How the transfers of collectives are named between two planes. Pure."""

from __future__ import annotations

from hashlib import blake2b

from manta.node.plane.collectives.messages import CallName, Places


def transfer_id(swarm_id: str, epoch: str, call: CallName, places: Places, key: str) -> bytes:
    """16 bytes, the same at both ends: the transfer's key names sender, receiver and round.

    None is given twice: a call that is begun anew has later places.
    """
    named = blake2b(digest_size=16)
    numbers = (call.era, call.number, *places.order)
    for part in (swarm_id, epoch, call.task, *map(str, numbers), key):
        data = part.encode("utf-8", "surrogatepass")
        named.update(len(data).to_bytes(4, "little") + data)
    return named.digest()
