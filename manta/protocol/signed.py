"""A user's signature of what is deployed, which each node verifies itself.

Ed25519 (RFC 8032), by a key that is derived (BLAKE3's key derivation) from the one that the
profile has anyway: there is one secret to keep, to seal and to revoke. Each task is signed alone,
with the swarm that it is part of, so that an order carries what proves it and nothing else.

What is signed is what a node would run: the task, its module by digest, its datasets and limits,
where it connects to, the swarm's name and purpose. What is not: on which nodes, how often, with how
many others and with which globals. `nonce` is of one deployment.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec
from blake3 import blake3

from manta.protocol.spec import (
    Collect,
    ModuleSpec,
    ResourceSpec,
    Signed,
    SwarmSpec,
    TaskSpec,
    datasets_of,
    outbound_of,
    resources_of,
)

if TYPE_CHECKING:
    from nacl.signing import SigningKey, VerifyKey

    from manta.protocol.node import Assignment

_CONTEXT = "manta 2026-11-30 swarms of a user: Ed25519 seed"
_FINGERPRINT = "manta 2026-11-30 fingerprint of a user's key"
_WHAT = b"manta swarm\0"
"""Begins all that is signed."""


class _Statement(msgspec.Struct, frozen=True, array_like=True):
    """What is signed of a task."""

    signed: Signed
    swarm: str
    description: str
    alias: str
    module: ModuleSpec
    class_name: str | None
    datasets: tuple[str, ...]
    outbound: tuple[str, ...]
    resources: ResourceSpec | None
    timeout: float | None
    priority: int
    gpu: bool
    collect: Collect


_encode = msgspec.json.Encoder(order="deterministic").encode
_decode = msgspec.json.Decoder(_Statement).decode


def _content(statement: _Statement) -> bytes:
    """The same bytes before and after it has crossed a wire, as of numbers."""
    return _WHAT + _encode(_decode(_encode(statement)))


def signing_key(secret: str) -> SigningKey:
    """`secret` is that of the user's CURVE key."""
    from nacl.signing import SigningKey

    return SigningKey(blake3(secret.encode(), derive_key_context=_CONTEXT).digest())


def public_of(secret: str) -> str:
    return bytes(signing_key(secret).verify_key).hex()


def fingerprint(public: str) -> str:
    """128 bits of a public key's digest, in groups that two people can compare aloud."""
    digits = blake3(public.encode(), derive_key_context=_FINGERPRINT).hexdigest(16)
    return "-".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def sign(spec: SwarmSpec, secret: str, nonce: str, at: float) -> SwarmSpec:
    """The specification, each of its tasks signed."""
    key = signing_key(secret)
    signed = Signed(bytes(key.verify_key).hex(), nonce, at)
    modules = {module.name: module for module in spec.modules}

    def one(task: TaskSpec) -> TaskSpec:
        module = modules[task.module]
        statement = _Statement(
            signed,
            spec.name,
            spec.description,
            task.alias,
            module,
            task.class_name,
            datasets_of(task, module),
            outbound_of(task, module),
            resources_of(task, module),
            task.timeout,
            task.priority,
            task.gpu,
            task.collect,
        )
        return msgspec.structs.replace(task, signature=key.sign(_content(statement)).signature)

    return msgspec.structs.replace(spec, tasks=tuple(map(one, spec.tasks)), signed=signed)


def is_by_its_key(order: Assignment) -> bool:
    """Whether the key that the order names has signed what it says."""
    from nacl.exceptions import BadSignatureError

    proof = order.signed
    if proof is None or len(proof.signature) != 64:
        return False
    statement = _Statement(
        proof.signed,
        order.swarm_name,
        proof.description,
        order.instance.alias,
        order.module,
        order.class_name,
        order.datasets,
        order.outbound,
        order.resources,
        order.timeout,
        order.priority,
        order.gpu,
        order.collect,
    )
    try:
        _verify_key(proof.signed.key).verify(_content(statement), proof.signature)
    except (BadSignatureError, ValueError):
        return False
    return True


@lru_cache(maxsize=64)
def _verify_key(public: str) -> VerifyKey:
    from nacl.signing import VerifyKey

    return VerifyKey(bytes.fromhex(public))
