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
from manta.protocol.node import GlobalWritten, JournalEntry, ResultWritten, TaskEnded, TaskError
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
    elif isinstance(entry, TaskEnded):
        value = entry.output if entry.error is None else packages_of(entry.error)
    else:
        return None
    return value if isinstance(value, BlobRef) else None


def packages_of(error: TaskError) -> BlobRef | None:
    return None if error.bundle is None else error.bundle.packages
