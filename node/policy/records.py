"""What was asked and said, on disk: `owner/` in the node's state folder.

    asked.json      what waits for the owner, keys that were seen first, the latest time; of the
                    daemon, which alone writes it
    decided.json    what the owner has said; of `manta_node approve`, `deny` and `revoke`
    code/DIGEST     the sources of what was asked for, with which later ones are compared

Each is replaced as a whole. One that is damaged is an error: what was denied must not be forgotten.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from manta.node.errors import OperatorError, StorageError
from manta.node.policy.consent import MOST_DECIDED, Asked, Consent
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Thing, read_stored_file
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import make_private_folder, write_private

MOST = 64 * 1024 * 1024
MOST_CODE = 1024 * 1024
"""Bytes of one module's sources that are kept."""
MOST_CODES = 1200
"""Modules of which they are: those that were asked for longest ago go first."""


class Code(msgspec.Struct, frozen=True, omit_defaults=True):
    """A module's files."""

    sources: dict[str, str] = {}
    others: dict[str, str] = {}
    """What is no source, or finds no room: the digest by path."""


class AskedRecords(msgspec.Struct, frozen=True, omit_defaults=True):
    asked: dict[str, Asked] = {}
    seen: dict[str, tuple[str, ...]] = {}
    """Fingerprints of keys that were taken as the first of an address."""
    latest: float = 0.0
    """The latest time that was seen."""


class DecidedRecords(msgspec.Struct, frozen=True, omit_defaults=True):
    consents: tuple[Consent, ...] = ()


T = TypeVar("T", AskedRecords, DecidedRecords)


class OwnerRecords:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._asked = folder / "asked.json"
        self._decided = folder / "decided.json"
        self._code = folder / "code"

    def asked(self) -> AskedRecords:
        """Raises Damaged, OSError."""
        return self._read(AskedRecords, self._asked, "which requests waited is not known")

    def decided(self) -> DecidedRecords:
        """Raises Damaged, OSError."""
        lost = "what the owner approved and denied is not known, so nothing is allowed by it"
        return self._read(DecidedRecords, self._decided, lost)

    def write_asked(self, records: AskedRecords) -> None:
        """Raises StorageError."""
        self._write(self._asked, records)

    def decide(self, change: Callable[[tuple[Consent, ...]], tuple[Consent, ...]]) -> None:
        """Replaces what was said by what `change` makes of it; two commands wait for each other.
        Raises Damaged, OSError, StorageError, OperatorError."""
        with self._locked():
            changed = change(self.decided().consents)
            if len(changed) > MOST_DECIDED:
                raise OperatorError(
                    f"{self._decided} holds {MOST_DECIDED:,} decisions, and no more are kept: "
                    "revoke some, or allow by rules of the policy."
                )
            self._write(self._decided, DecidedRecords(changed))

    def mark(self) -> tuple[int, int, int] | None:
        """What changes whenever the owner says something."""
        return mark_of(self._decided)

    def keep_code(self, digest: str, code: Code) -> None:
        """Raises StorageError."""
        self._write(self._code / f"{digest}.json", code)
        kept = sorted(self._code.glob("*.json"), key=lambda path: path.stat().st_mtime)
        for path in kept[:-MOST_CODES]:
            path.unlink(missing_ok=True)

    def code(self, digest: str) -> Code | None:
        """None if it is not kept. Raises Damaged, OSError."""
        path = self._code / f"{digest}.json"
        thing = Thing(f"{path}", "what the code is cannot be shown", "delete it, and ask again")
        try:
            return read_stored_file(thing, json_decoder(Code).decode, path, 8 * MOST_CODE)
        except FileNotFoundError:
            return None

    def _read(self, kind: type[T], path: Path, lost: str) -> T:
        thing = Thing(f"{path}", lost, "restore it from a backup, or delete it")
        try:
            return read_stored_file(thing, json_decoder(kind).decode, path, MOST)
        except FileNotFoundError:
            return kind()

    def _write(self, path: Path, content: object) -> None:
        encoded = msgspec.json.encode(content)
        if len(encoded) >= MOST:
            raise StorageError(
                f"{path} cannot be written: it would have {len(encoded):,} bytes, and {MOST:,} can "
                "be read again."
            )
        try:
            make_private_folder(path.parent)
            write_private(path, encoded.decode() + "\n", replace=True)
        except (KeyFileError, OSError) as error:
            raise StorageError(f"{path} cannot be written: {error}.") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        make_private_folder(self.folder)
        lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def mark_of(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from what takes its place; None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
