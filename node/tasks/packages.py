"""Unpacks a module's package, without trusting anything in it.

A package is an encoded dict of relative path -> bytes, and under `__entry__` what is run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manta.node.errors import PackageError, StorageError
from manta.node.state import open_to_readers
from manta.protocol.spec import MAX_PACKAGE_BYTES, MAX_PACKAGE_FILES
from manta.transports.codec.values import decode
from manta.transports.errors import CorruptValue, MissingPackage
from manta.transports.files import read_bounded

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

ENTRY = "__entry__"
ENTRY_FILE = ".manta-entry"
"""In the folder of an unpacked package: the hash of its files, and its entry."""
MAX_DEPTH = 32


def unpacked(folder: Path) -> str | None:
    """Returns the entry of the package that was unpacked to `folder`.

    None if there is none, or if it was changed: a plain process may write to its own module.
    """
    try:
        kept, _, entry = read_bounded(folder / ENTRY_FILE).decode().partition("\n")
        return entry if kept == _hash(folder) else None
    except (OSError, ValueError):
        return None


def unpack(data: Buffer, folder: Path, what: str) -> str:
    """Write the package's files to `folder`, whole or not at all; returns its entry.

    Raises PackageError, StorageError. Who unpacks the same at the same time does no harm.
    """
    import tempfile  # dear to import, and not needed to start a node

    files, entry = _checked(data, what)
    try:
        draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    except OSError as error:
        raise StorageError(f"{what} cannot be written to {folder}: {error}.") from error
    try:
        for path, content in files.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (draft / ENTRY_FILE).write_text(f"{_hash(draft)}\n{entry}", encoding="utf-8")
        open_to_readers(draft)
        if folder.is_dir() and unpacked(folder) is None:
            os.rename(folder, f"{draft}-damaged")
        os.rename(draft, folder)
    except FileExistsError as error:
        raise PackageError(f"{what}: two of its files are in each other's way.") from error
    except OSError as error:
        if unpacked(folder) is None:
            raise StorageError(f"{what} cannot be written to {folder}: {error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(f"{draft}-damaged", ignore_errors=True)
    return entry


def _hash(folder: Path) -> str:
    """Of all files, by name and content, but for what Python itself writes beside them."""
    files = hashlib.blake2b(digest_size=32)
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(names):
            path = os.path.join(place, name)
            where = os.path.relpath(path, folder)
            if where == ENTRY_FILE:
                continue
            with open(path, "rb") as file:
                content = file.read()
            files.update(f"{len(where)} {where} {len(content)} ".encode(errors="surrogateescape"))
            files.update(content)
    return files.hexdigest()


def _checked(data: Buffer, what: str) -> tuple[dict[str, bytes], str]:
    try:
        package: Any = decode(data)
    except (CorruptValue, MissingPackage) as error:
        raise PackageError(f"{what} is damaged ({error}); deploy the swarm again.") from error
    if not isinstance(package, dict) or not isinstance(package.get(ENTRY), str):
        raise PackageError(f"{what} is no module package: deploy the swarm again.")
    entry = package.pop(ENTRY)
    if len(package) > MAX_PACKAGE_FILES:
        raise PackageError(f"{what} has {len(package)} files, and {MAX_PACKAGE_FILES} are allowed.")
    size = 0
    seen: set[str] = set()
    for path, content in package.items():
        if not isinstance(path, str) or not isinstance(content, bytes):
            raise PackageError(f"{what} holds something that is no file: {path!r}.")
        _check_path(path, what)
        if path in seen:
            raise PackageError(f"{what} holds {path!r} twice.")
        seen.add(path)
        size += len(content)
    if size > MAX_PACKAGE_BYTES:
        raise PackageError(f"{what} has {size} bytes, and {MAX_PACKAGE_BYTES} are allowed.")
    _check_path(entry, what)
    if entry not in package and f"{entry}/__init__.py" not in package:
        raise PackageError(f"{what} lacks its own entry, {entry!r}.")
    return package, entry


def _check_path(path: str, what: str) -> None:
    parts = path.split("/")
    if (
        not path
        or len(path.encode("utf-8", "surrogatepass")) > 1024
        or "\0" in path
        or "\\" in path
        or len(parts) > MAX_DEPTH
        or any(part in ("", ".", "..") for part in parts)
        or any(0xD800 <= ord(c) <= 0xDFFF for c in path)
        or path == ENTRY_FILE
        or "__pycache__" in parts  # Python runs what is there in place of the source
    ):
        raise PackageError(f"{what} holds a path that is not allowed: {path[:200]!r}.")
