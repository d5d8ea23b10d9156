"""Two peers prove to each other that they know a secret, and get a key: SPAKE2 (RFC 9382).

The group is edwards25519, with SHA-256, HKDF and HMAC. Who only listens learns nothing that a guess
at the secret can be compared with; who takes part can try one guess in each exchange. Pure, but for
the random scalars, which are given.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import NamedTuple

from nacl import pwhash
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_core_ed25519_is_valid_point,
    crypto_core_ed25519_scalar_reduce,
    crypto_core_ed25519_sub,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_scalarmult_ed25519_noclamp,
)
from nacl.exceptions import CryptoError

M = bytes.fromhex("d048032c6ea0b6d697ddc2e86bda85a33adac920f1bf18e1b0c6d166a5cecdaf")
N = bytes.fromhex("d3bfb518f44f3430f29d0c92af503865a1ed3281dc69b35dd868ba85f886c4ab")
"""The points of section 6, of which nobody knows the logarithm."""
JOINS, ADMITS = b"manta mesh: who joins", b"manta mesh: who admits"
"""The identities of the sides A and B."""
_SALT = b"manta mesh 1".ljust(pwhash.argon2id.SALTBYTES, b"\0")
POINT = 32
"""Bytes of a point, and of a proof."""


class WrongProof(Exception):
    """The other side does not know the secret, or is none."""


class Keys(NamedTuple):
    """What both sides have; `a` and `b` are the proofs of each."""

    shared: bytes
    a: bytes
    b: bytes


@lru_cache(maxsize=16)
def scalar_of(secret: str) -> bytes:
    """The w of a secret, little-endian: Argon2id with 64 MiB and two passes, about 0.1 s."""
    stretched = pwhash.argon2id.kdf(
        64,
        secret.encode("utf-8", "surrogatepass"),
        _SALT,
        opslimit=pwhash.argon2id.OPSLIMIT_INTERACTIVE,
        memlimit=pwhash.argon2id.MEMLIMIT_INTERACTIVE,
    )
    return crypto_core_ed25519_scalar_reduce(stretched)


class Side:
    """Of one exchange; `random` are 64 bytes that nobody else knows."""

    def __init__(self, w: bytes, random: bytes, *, joins: bool) -> None:
        self._w = w
        self._joins = joins
        self._x = crypto_core_ed25519_scalar_reduce(random)
        own = M if joins else N
        masked = crypto_scalarmult_ed25519_noclamp(w, own)
        self.share = crypto_core_ed25519_add(
            crypto_scalarmult_ed25519_base_noclamp(self._x), masked
        )
        """What the other side is told."""

    def keys(self, share: bytes) -> Keys:
        """Given what the other side told. Raises WrongProof for what is no point of the group."""
        try:
            if len(share) != POINT or not crypto_core_ed25519_is_valid_point(share):
                raise WrongProof("what came is no point of the group")
            theirs = N if self._joins else M
            point = crypto_core_ed25519_sub(
                share, crypto_scalarmult_ed25519_noclamp(self._w, theirs)
            )
            for _ in range(3):  # the cofactor is 8
                point = crypto_core_ed25519_add(point, point)
            shared = crypto_scalarmult_ed25519_noclamp(self._x, point)
        except CryptoError as error:  # the neutral element
            raise WrongProof("what came is no point of the group") from error
        a, b = (self.share, share) if self._joins else (share, self.share)
        return keys_of(transcript(JOINS, ADMITS, a, b, shared, self._w[::-1]))


def transcript(a: bytes, b: bytes, share_a: bytes, share_b: bytes, k: bytes, w: bytes) -> bytes:
    """TT of section 4; `w` is big-endian."""
    parts = (a, b, share_a, share_b, k, w)
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def keys_of(tt: bytes, aad: bytes = b"") -> Keys:
    """The key schedule and the confirmations of section 4."""
    digest = hashlib.sha256(tt).digest()
    shared, own = digest[:16], digest[16:]
    confirming = _hkdf(own, b"ConfirmationKeys" + aad, 32)
    a, b = (hmac.digest(key, tt, "sha256") for key in (confirming[:16], confirming[16:]))
    return Keys(shared, a, b)


def box_key(shared: bytes) -> bytes:
    """For `nacl.secret.SecretBox`."""
    return _hkdf(shared, b"manta mesh cards", 32)


def check(proof: bytes, expected: bytes) -> None:
    """Raises WrongProof."""
    if not hmac.compare_digest(proof, expected):
        raise WrongProof("the secret is another one")


def _hkdf(key: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 with SHA-256 and no salt; at most 32 bytes."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")[:size]
