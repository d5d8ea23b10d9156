"""Values in messages: small ones are inline, large ones are blobs."""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.protocol.base import Count

INLINE_LIMIT = 64 * 1024
"""Bytes up to which an encoded value is part of the message."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""BLAKE3 of the blob's bytes."""


class Inline(msgspec.Struct, frozen=True, tag="inline", array_like=True):
    """An encoded value (`manta.transports.codec.values`) of at most INLINE_LIMIT bytes."""

    data: Annotated[bytes, msgspec.Meta(max_length=INLINE_LIMIT)]


class BlobRef(msgspec.Struct, frozen=True, tag="blob", array_like=True):
    """A content-addressed blob, which moves over the bulk plane, never in a message."""

    digest: Digest
    size: Count


Payload = Inline | BlobRef
