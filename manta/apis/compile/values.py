"""Encodes values to be sent: inline in a message, or as a blob beside it."""

from __future__ import annotations

from typing import Any

from manta.apis.errors import InvalidValue
from manta.protocol.values import INLINE_LIMIT, BlobRef, Inline, Payload
from manta.transports.blobs.digests import digest_of
from manta.transports.codec.values import Encoded, encode
from manta.transports.errors import ValueNotSerializable


def payload(value: Any, blobs: dict[str, Encoded], what: str, limit: int = INLINE_LIMIT) -> Payload:
    """Encodes a value; one that is over the limit (bytes) is added to the blobs.

    Raises InvalidValue, whose message starts with `what`.
    """
    try:
        encoded = encode(value)
    except ValueNotSerializable as error:
        raise InvalidValue(f"{what} cannot be sent: {error}") from None
    if encoded.nbytes <= limit:
        return Inline(encoded.to_bytes())
    return to_blob(encoded, blobs)


def to_blob(encoded: Encoded, blobs: dict[str, Encoded]) -> BlobRef:
    """Adds an encoded value to the blobs under its digest."""
    digest = digest_of(*encoded.parts())
    blobs[digest] = encoded
    return BlobRef(digest, encoded.nbytes)
