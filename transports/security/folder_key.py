"""The key of a folder whose files are encrypted, itself encrypted with its owner's key.

`encryption.json` holds it, wrapped by AES-256-GCM (NIST SP 800-38D) under a random nonce of 96
bits. Files are encrypted with keys of their own, which the folder's key wraps: so a wrong owner's
key is known at once, and the owner's key encrypts nothing else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from manta.transports.errors import KeyFileError
from manta.transports.security.keys import read_private, write_private
from manta.transports.security.owner_key import KeySource

NAME = "encryption.json"
VERSION = 1
NONCE = 12
"""Bytes."""
_BOUND = b"manta folder key 1"


def folder_key(
    folder: Path, source: KeySource | None, setting: str, has_sealed: Callable[[], bool]
) -> bytes | None:
    """The key of the folder's files, 32 bytes; None where they are not encrypted.

    With an owner's key and without `encryption.json` a new one is made: what is there stays as it
    is. `setting` is where the owner says where the key is; `has_sealed` tells whether anything is
    encrypted there already. Raises KeyFileError.
    """
    path = folder / NAME
    if source is None:
        if path.exists():
            raise KeyFileError(
                f"what is kept in {folder} is encrypted, and no key is given: say where it is "
                f"({setting})"
            )
        return None
    owner = source.read()
    if path.exists():
        return _unwrapped(path, owner, source)
    if has_sealed():
        raise KeyFileError(
            f"{path} is gone, and nothing that is encrypted in {folder} can be read without it: "
            "restore it from a backup, or move the folder away to start anew"
        )
    return _made(path, owner)


def _made(path: Path, owner: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key, nonce = AESGCM.generate_key(256), os.urandom(NONCE)
    wrapped = nonce + AESGCM(owner).encrypt(nonce, key, _BOUND)
    text = json.dumps({"version": VERSION, "key": wrapped.hex()}, indent=2)
    write_private(path, text + "\n")
    return key


def _unwrapped(path: Path, owner: bytes, source: KeySource) -> bytes:
    """Raises KeyFileError."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        fields = json.loads(read_private(path))
        version, wrapped = fields["version"], bytes.fromhex(fields["key"])
        if version != VERSION:
            raise KeyFileError(
                f"{path} is of version {version!r}, which this version of Manta does not know: "
                "install a later one"
            )
        return AESGCM(owner).decrypt(wrapped[:NONCE], wrapped[NONCE:], _BOUND)
    except InvalidTag:
        raise KeyFileError(
            f"the key of {source} is not the one with which {path.parent} is encrypted, or "
            f"{path.name} there was changed: give the right key, or restore that file"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise KeyFileError(
            f"{path} is damaged, and nothing that is encrypted there can be read without it: "
            "restore it from a backup"
        ) from None
