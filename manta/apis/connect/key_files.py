"""The file of a profile's key pair, which a passphrase may seal.

public = Z85
secret = Z85             or, with a passphrase,
sealed = {"box", "salt"}
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from manta.apis.connect.sealing import CannotOpen, Sealed, seal_key, unseal_key
from manta.transports.codec.decoders import json_decoder
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import KeyPair, read_fields, write_private

PASSPHRASE = "MANTA_PASSPHRASE"


def open_key(path: Path, passphrase: str) -> KeyPair:
    """Returns the key pair; makes it the first time. Raises KeyFileError.

    With a passphrase the file is sealed, also one that was not before.
    """
    if not path.exists():
        try:
            _save(path, KeyPair.generate(), passphrase)
        except KeyFileError:
            if not path.exists():  # else another process was faster
                raise
    fields = read_fields(path)
    if "sealed" in fields:
        return _unsealed(path, fields, passphrase)
    pair = KeyPair.of_fields(path, fields)
    if passphrase:
        _save(path, pair, passphrase, replace=True)
    return pair


def _save(path: Path, pair: KeyPair, passphrase: str, *, replace: bool = False) -> None:
    if not passphrase:
        pair.save(path, replace=replace)
        return
    sealed = msgspec.json.encode(seal_key(pair.secret, passphrase)).decode()
    text = (
        f"# Manta key pair, sealed with {PASSPHRASE}.\npublic = {pair.public}\nsealed = {sealed}\n"
    )
    write_private(path, text, replace=replace)


def _unsealed(path: Path, fields: Mapping[str, str], passphrase: str) -> KeyPair:
    if not passphrase:
        raise KeyFileError(
            f"{path} is sealed with a passphrase: set {PASSPHRASE} to it, or delete the file and "
            "sign in again"
        )
    try:
        sealed = json_decoder(Sealed).decode(fields["sealed"])
        secret = unseal_key(sealed, passphrase)
    except (CannotOpen, msgspec.DecodeError):
        raise KeyFileError(
            f"{path} was not sealed with this passphrase, or was changed: set {PASSPHRASE} to the "
            "right passphrase, or delete the file and sign in again"
        ) from None
    return KeyPair.of_fields(path, {**fields, "secret": secret})
