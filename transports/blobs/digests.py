"""Digests, which name blobs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from blake3 import blake3

from manta.transports.errors import BlobRefused

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

DIGEST = re.compile("[0-9a-f]{64}")


def digest_of(*parts: Buffer) -> str:
    """The digest of the concatenated buffers."""
    hasher = blake3()
    for part in parts:
        hasher.update(part)
    return hasher.hexdigest()


def check_digest(digest: str) -> str:
    """The digest, if it is one: it becomes a file name. Raises BlobRefused."""
    if not DIGEST.fullmatch(digest):
        raise BlobRefused(f"{digest[:80]!r} is no digest: expected 64 hexadecimal characters")
    return digest
