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
from manta.transports.codec.decoders import MALFORMED, json_decoder
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import KeyPair, read_fields, write_private

PASSPHRASE = "MANTA_PASSPHRASE"
_SEALED = "sealed"


def open_key(path: Path, passphrase: str) -> KeyPair:
    """Returns the key pair; makes it the first time, sealed with the passphrase if there is one.

    A file that is not sealed stays so until `seal_file`: a passphrase that nothing has been opened
    with yet may be mistyped. Raises KeyFileError.
    """
    if not path.exists():
        try:
            _save(path, KeyPair.generate(), passphrase)
        except KeyFileError:
            if not path.exists():  # else another process was faster
                raise
    fields = read_fields(path)
    if _SEALED in fields:
        return _unsealed(path, fields, passphrase)
    return KeyPair.of_fields(path, fields)


def is_sealed(path: Path) -> bool:
    """Raises KeyFileError."""
    return _SEALED in read_fields(path)


def seal_file(path: Path, passphrase: str) -> None:
    """Seals the file if it is not sealed and there is a passphrase. Raises KeyFileError."""
    if passphrase and not is_sealed(path):
        _save(path, open_key(path, passphrase), passphrase, replace=True)


def _save(path: Path, pair: KeyPair, passphrase: str, *, replace: bool = False) -> None:
    if not passphrase:
        pair.save(path, replace=replace)
        return
    sealed = msgspec.json.encode(seal_key(pair.secret, passphrase)).decode()
    text = (
        f"# Manta key pair, sealed with {PASSPHRASE}.\n"
        f"public = {pair.public}\n{_SEALED} = {sealed}\n"
    )
    write_private(path, text, replace=replace)


def _unsealed(path: Path, fields: Mapping[str, str], passphrase: str) -> KeyPair:
    if not passphrase:
        raise KeyFileError(
            f"{path} is sealed with a passphrase: set {PASSPHRASE} to it, or delete the file and "
            "sign in again"
        )
    try:
        sealed = json_decoder(Sealed).decode(fields[_SEALED])
        secret = unseal_key(sealed, passphrase)
    except (CannotOpen, *MALFORMED):
        raise KeyFileError(
            f"{path} was not sealed with this passphrase, or was changed: set {PASSPHRASE} to the "
            "right passphrase, or delete the file and sign in again"
        ) from None
    return KeyPair.of_fields(path, {**fields, "secret": secret})
