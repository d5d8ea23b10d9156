"""Kinds of journal entries, by what there is in them."""

from __future__ import annotations

from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    ClaimsReturned,
    Contributed,
    LockReleased,
    LockWanted,
    Receiving,
    Sent,
)
from manta.protocol.node import GlobalWritten, JournalEntry, ResultWritten, TaskEnded
from manta.protocol.values import BlobRef, Payload

WITH_A_VALUE = ResultWritten | GlobalWritten | Broadcasted | Sent | Contributed | Checkpointed
WITHOUT = Receiving | ClaimsReturned | LockWanted | LockReleased
"""Entries that reads of tasks rest on, with a value and without."""


def blob_of(entry: JournalEntry) -> BlobRef | None:
    """The blob that must be at the manager before the entry is."""
    value: Payload | None
    if isinstance(entry, ResultWritten) and entry.held:
        return None
    if isinstance(entry, WITH_A_VALUE):
        value = entry.value
    elif isinstance(entry, TaskEnded) and entry.output is not None:
        value = entry.output
    else:
        return None
    return value if isinstance(value, BlobRef) else None
