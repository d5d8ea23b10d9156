"""Seals tokens on disk with a key derived from the user's key file.

`credentials/NAME.json` holds a SecretBox (XSalsa20-Poly1305) of the token. Its key is derived
from the secret half of `keys/NAME.key`, so one file is useless without the other;
with a passphrase (`MANTA_PASSPHRASE`) argon2id of that is mixed into the key as well.
"""

from __future__ import annotations

import msgspec

_CONTEXT = "manta 2026 credentials of a profile"


class Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`salt` belongs to the passphrase, and is None without one."""

    box: bytes
    salt: bytes | None = None


class CannotOpen(Exception):
    """The key or passphrase is wrong, or the bytes were changed."""


def seal(token: str, secret: str, passphrase: str) -> Sealed:
    """Seals a token with the secret key of the user; an empty passphrase means none."""
    from nacl.pwhash.argon2id import SALTBYTES
    from nacl.secret import SecretBox
    from nacl.utils import random

    salt = random(SALTBYTES) if passphrase else None
    return Sealed(
        bytes(SecretBox(_key(secret, passphrase, salt)).encrypt(token.encode())),
        salt,
    )


def unseal(sealed: Sealed, secret: str, passphrase: str) -> str:
    """Returns the token. Raises CannotOpen."""
    from nacl.exceptions import CryptoError
    from nacl.exceptions import ValueError as NaclValueError
    from nacl.secret import SecretBox

    try:
        box = SecretBox(_key(secret, passphrase, sealed.salt))
        return box.decrypt(sealed.box).decode()
    except (CryptoError, NaclValueError, ValueError):
        raise CannotOpen from None


def _key(secret: str, passphrase: str, salt: bytes | None) -> bytes:
    from blake3 import blake3

    material = secret.encode()
    if salt is not None:
        from nacl.pwhash import argon2id

        material += argon2id.kdf(
            32,
            passphrase.encode(),
            salt,
            opslimit=argon2id.OPSLIMIT_INTERACTIVE,
            memlimit=argon2id.MEMLIMIT_INTERACTIVE,
        )
    return blake3(material, derive_key_context=_CONTEXT).digest()
