"""Unpack a module's package into a folder, trusting nothing of it.

A package is an encoded dict of relative path -> bytes, and under `__entry__` what is run.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manta.node.errors import PackageError, StorageError
from manta.transports.errors import CorruptValue, MissingPackage
from manta.transports.values import decode

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

ENTRY = "__entry__"
ENTRY_FILE = ".manta-entry"
MAX_BYTES = 256 * 1024 * 1024
MAX_FILES = 10_000
MAX_DEPTH = 32


def unpacked(folder: Path) -> str | None:
    """The entry of a package that was unpacked to `folder`; None when it was not."""
    try:
        return (folder / ENTRY_FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


def unpack(data: Buffer, folder: Path, what: str) -> str:
    """Write the package's files to `folder`, whole or not at all; returns its entry.

    Raises PackageError, StorageError. Who unpacks the same at the same time does no harm.
    """
    import tempfile  # dear to import, and not needed to start a node

    files, entry = _checked(data, what)
    draft = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".draft-"))
    try:
        for path, content in files.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (draft / ENTRY_FILE).write_text(entry, encoding="utf-8")
        draft.chmod(0o755)
        os.rename(draft, folder)
    except FileExistsError as error:
        raise PackageError(f"{what}: two of its files are in each other's way.") from error
    except OSError as error:
        if unpacked(folder) is None:
            raise StorageError(f"{what} cannot be written to {folder}: {error}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return entry


def _checked(data: Buffer, what: str) -> tuple[dict[str, bytes], str]:
    try:
        package: Any = decode(data)
    except (CorruptValue, MissingPackage) as error:
        raise PackageError(f"{what} is damaged ({error}); deploy the swarm again.") from error
    if not isinstance(package, dict) or not isinstance(package.get(ENTRY), str):
        raise PackageError(f"{what} is no module package: deploy the swarm again.")
    entry = package.pop(ENTRY)
    if len(package) > MAX_FILES:
        raise PackageError(f"{what} has {len(package)} files, and {MAX_FILES} are allowed.")
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
    if size > MAX_BYTES:
        raise PackageError(f"{what} has {size} bytes, and {MAX_BYTES} are allowed.")
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
    ):
        raise PackageError(f"{what} holds a path that is not allowed: {path[:200]!r}.")
