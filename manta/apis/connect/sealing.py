"""Seals what a profile keeps on disk: its key with a passphrase, and its token with its key.

With `MANTA_PASSPHRASE`, `keys/NAME.key` holds a SecretBox (XSalsa20-Poly1305) of the secret half,
whose key is argon2id of the passphrase. `credentials/NAME.json` holds one of the token, whose key
is derived from the secret half, so that one file is useless without the other, and both without
the passphrase.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

_CONTEXT = "manta 2026 credentials of a profile"


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`salt` belongs to a passphrase. An earlier version mixed that into the key of a token."""

    box: bytes
    salt: bytes | None = None


class CannotOpen(Exception):
    """The key or passphrase is wrong, or the bytes were changed."""


def seal_key(secret: str, passphrase: str) -> Sealed:
    from nacl.pwhash.argon2id import SALTBYTES
    from nacl.utils import random

    salt = random(SALTBYTES)
    return Sealed(_box(_stretched(passphrase, salt), secret), salt)


def unseal_key(sealed: Sealed, passphrase: str) -> str:
    """Returns the secret half. Raises CannotOpen."""
    return _opened(_stretched(passphrase, sealed.salt or b""), sealed.box)


def seal(token: str, secret: str) -> Sealed:
    """Seals a token with the secret half of the user's key."""
    return Sealed(_box(_derived(secret.encode()), token))


def unseal(sealed: Sealed, secret: str, passphrase: str) -> str:
    """Returns the token. Raises CannotOpen."""
    material = secret.encode()
    if sealed.salt is not None:
        material += _stretched(passphrase, sealed.salt)
    return _opened(_derived(material), sealed.box)


def _box(key: bytes, text: str) -> bytes:
    from nacl.secret import SecretBox

    return bytes(SecretBox(key).encrypt(text.encode()))


def _opened(key: bytes, box: bytes) -> str:
    from nacl.exceptions import CryptoError
    from nacl.exceptions import ValueError as NaclValueError
    from nacl.secret import SecretBox

    try:
        return SecretBox(key).decrypt(box).decode()
    except (CryptoError, NaclValueError, ValueError):
        raise CannotOpen from None


@lru_cache(maxsize=8)  # a command opens its token, and then its key
def _stretched(passphrase: str, salt: bytes) -> bytes:
    """64 MiB and about 0.1 s. Raises CannotOpen."""
    from nacl.exceptions import ValueError as NaclValueError
    from nacl.pwhash import argon2id

    try:
        return argon2id.kdf(
            32,
            passphrase.encode(),
            salt,
            opslimit=argon2id.OPSLIMIT_INTERACTIVE,
            memlimit=argon2id.MEMLIMIT_INTERACTIVE,
        )
    except NaclValueError:  # the salt was changed
        raise CannotOpen from None


def _derived(material: bytes) -> bytes:
    from blake3 import blake3

    return blake3(material, derive_key_context=_CONTEXT).digest()
