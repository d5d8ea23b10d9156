"""How the transfers of collectives are named between two planes. Pure."""

from __future__ import annotations

from hashlib import blake2b

from manta.node.plane.collectives.messages import CallName


def transfer_id(swarm_id: str, epoch: str, call: CallName, version: int, key: str) -> bytes:
    """16 bytes, the same at both ends: the transfer's key names sender, receiver and round.

    None is given twice: a call that is begun anew has a greater `version` of its places.
    """
    named = blake2b(digest_size=16)
    for part in (swarm_id, epoch, call.task, str(call.era), str(call.number), str(version), key):
        data = part.encode("utf-8", "surrogatepass")
        named.update(len(data).to_bytes(4, "little") + data)
    return named.digest()
