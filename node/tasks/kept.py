"""What tasks keep on their node for their swarm: a file for each key.

`NAME.kept` is the BLAKE3 digest of a value and the value. Earlier versions wrote the value alone,
as `NAME`. On a node that encrypts, the content of `NAME.kept` is encrypted as that of a blob, bound
to the names of the file and of its folder.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.sources import FileSource
from manta.transports.codec.stored import Damaged, Thing
from manta.transports.errors import BlobCorrupt

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.transports.blobs.interface import Source
    from manta.transports.blobs.sealing import Sealer
    from manta.transports.interface import Buffer

_DIGEST = 32  # bytes


def load(path: Path, key: str, values: TieredDepot, sealer: Sealer | None = None) -> Payload | None:
    """Returns the value that `path` names, None if there is none.

    Raises Damaged, OSError, BulkError.
    """
    kept = path.with_suffix(".kept")
    try:
        return _load(kept, _DIGEST, key, values, sealer)
    except FileNotFoundError:
        pass
    try:
        return _load(path, 0, key, values, None)
    except FileNotFoundError:
        return None


def _load(path: Path, head: int, key: str, values: TieredDepot, sealer: Sealer | None) -> Payload:
    thing = Thing(f"The state {key!r} of this node", "it is lost", "set it anew (set_state)")
    try:
        with contextlib.closing(_source(path, sealer)) as source:
            payload, digest, expected = _read(source, head, values)
    except BlobCorrupt as error:
        raise Damaged(thing, f"{path}: {error}") from error
    if head and digest != expected:
        values.let_go(digest)
        raise Damaged(thing, f"{path} does not have its digest")
    return payload


def _source(path: Path, sealer: Sealer | None) -> Source:
    """Raises OSError, BlobCorrupt."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if sealer is not None and sealer.has_sealed(fd):
        return sealer.open(fd, _bound(path))
    return FileSource(fd)


def _bound(path: Path) -> str:
    """To what an encrypted file's key is bound."""
    return f"{path.parent.name}/{path.stem}"


def _read(source: Source, head: int, values: TieredDepot) -> tuple[Payload, str, str]:
    """The value, its digest, and the one that it should have."""
    at, size = 0, source.size - head

    def read(most: int) -> bytes:
        nonlocal at
        piece = bytes(source.read(at, most))
        at += len(piece)
        return piece

    expected = read(head).hex()
    if size <= INLINE_LIMIT:
        small = Inline(read(max(0, size)))
        return small, digest_of(small.data), expected
    digest = values.put(read(size)) if size <= values.largest else values.put_stream(read, size)
    return BlobRef(digest, size), digest, expected


def size_of(value: Payload) -> int:
    """The bytes of the file in which it is kept."""
    return _DIGEST + (len(value.data) if isinstance(value, Inline) else value.size)


def store(
    path: Path, value: Payload, values: TieredDepot, session: str, sealer: Sealer | None = None
) -> None:
    """Whole or not at all; what it replaces is shredded. Raises OSError, BulkError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_suffix(f".{session}")
    try:
        with draft.open("wb") as file:
            if sealer is None:
                _write(value, values, file.write)
            else:
                content = sealer.content(file.fileno(), size_of(value))
                _write(value, values, content.write)
                content.finish(sealer, _bound(path))
        _replace(draft, path.with_suffix(".kept"), sealer)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _write(value: Payload, values: TieredDepot, write: Callable[[Buffer], object]) -> None:
    if isinstance(value, Inline):
        write(bytes.fromhex(digest_of(value.data)) + value.data)
    else:
        write(bytes.fromhex(value.digest))
        values.save(value.digest, write)


def _replace(draft: Path, target: Path, sealer: Sealer | None) -> None:
    former = -1
    if sealer is not None and target.exists():
        former = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.replace(draft, target)
    except BaseException:
        if former >= 0:
            os.close(former)
        raise
    if sealer is not None and former >= 0:
        sealer.erase(former, target)
