"""The key that seals a log: Ed25519 (RFC 8032), derived from a secret that the process has anyway.

Derived (BLAKE3's key derivation), so that there is one secret to keep and to back up, and no
signature of it is one of anything else. Whoever has the secret can make the log anew.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from blake3 import blake3

from manta.audit.records import id_of

if TYPE_CHECKING:
    from nacl.signing import SigningKey, VerifyKey

_CONTEXT = "manta 2026-11-30 audit log: Ed25519 seed"
_WHAT = b"manta audit log\0"
"""Begins all that is signed."""
PUBLIC_DIGITS = 64


class SealKey:
    """May be used from any thread."""

    def __init__(self, secret: bytes) -> None:
        from nacl.signing import SigningKey

        seed = blake3(secret, derive_key_context=_CONTEXT).digest()
        self._key: SigningKey = SigningKey(seed)
        self.public = bytes(self._key.verify_key).hex()
        self.id = id_of(self.public)

    def seal(self, content: bytes) -> str:
        return self._key.sign(_WHAT + content).signature.hex()


def is_public(text: str) -> bool:
    """Whether the text has the form of a public key: 64 hexadecimal digits."""
    return len(text) == PUBLIC_DIGITS and not set(text) - set("0123456789abcdef")


def is_sealed(public: str, content: bytes, seal: str) -> bool:
    """Whether the seal is of this content and the key; False for what is none at all."""
    from nacl.exceptions import BadSignatureError

    try:
        signature = bytes.fromhex(seal)
        if signature.hex() != seal or len(signature) != 64:
            return False
        _verify_key(public).verify(_WHAT + content, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


@lru_cache(maxsize=16)
def _verify_key(public: str) -> VerifyKey:
    from nacl.signing import VerifyKey

    return VerifyKey(bytes.fromhex(public))
