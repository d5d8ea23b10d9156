"""What tasks keep on their node for their swarm: a file for each key.

`NAME.kept` is the BLAKE3 digest of a value and the value. Earlier versions wrote the value alone,
as `NAME`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.transports.blobs.digests import digest_of
from manta.transports.codec.stored import Damaged, Thing

if TYPE_CHECKING:
    from manta.node.blobs.tiered_depot import TieredDepot

_DIGEST = 32  # bytes


def load(path: Path, key: str, values: TieredDepot) -> Payload | None:
    """Returns the value that `path` names, None if there is none.

    Raises Damaged, OSError, BulkError.
    """
    kept = path.with_suffix(".kept")
    try:
        return _load(kept, _DIGEST, key, values)
    except FileNotFoundError:
        pass
    try:
        return _load(path, 0, key, values)
    except FileNotFoundError:
        return None


def _load(path: Path, head: int, key: str, values: TieredDepot) -> Payload:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - head
        expected = file.read(head).hex()
        payload: Payload
        if size <= INLINE_LIMIT:
            payload = Inline(file.read(max(0, size)))
            digest = digest_of(payload.data)
        else:
            if size <= values.largest:
                digest = values.put(file.read(size))
            else:
                digest = values.put_stream(file.read, size)
            payload = BlobRef(digest, size)
    if head and digest != expected:
        values.let_go(digest)
        thing = Thing(f"The state {key!r} of this node", "it is lost", "set it anew (set_state)")
        raise Damaged(thing, f"{path} does not have its digest")
    return payload


def size_of(value: Payload) -> int:
    """The bytes of the file in which it is kept."""
    return _DIGEST + (len(value.data) if isinstance(value, Inline) else value.size)


def store(path: Path, value: Payload, values: TieredDepot, session: str) -> None:
    """Whole or not at all. Raises OSError, BulkError."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    draft = path.with_suffix(f".{session}")
    try:
        with draft.open("wb") as file:
            if isinstance(value, Inline):
                file.write(bytes.fromhex(digest_of(value.data)) + value.data)
            else:
                file.write(bytes.fromhex(value.digest))
                values.save(value.digest, file)
        os.replace(draft, path.with_suffix(".kept"))
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)
