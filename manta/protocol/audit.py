"""How node and manager keep each other's audit logs from being made anew unseen."""

from __future__ import annotations

from typing import Annotated

import msgspec

from manta.protocol.base import Message
from manta.protocol.values import Digest

SealKeyText = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class LogHead(Message, frozen=True):
    """Where the manager's log ends, with that of the node in it."""

    number: Annotated[int, msgspec.Meta(ge=0)]
    digest: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")]
    key: SealKeyText
    """The public key that seals it."""


class TellLogHead(Message, frozen=True):
    """Where the node's log ends; the manager keeps it in its own."""

    number: Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]
    digest: Digest
    key: SealKeyText
