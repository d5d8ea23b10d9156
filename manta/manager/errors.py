"""Every error that this package raises of its own; a no to a request is `manta.actors.Refused`."""

from __future__ import annotations


class ManagerError(Exception):
    """Root of this package's errors."""


class StartError(ManagerError):
    """The manager cannot start; the sentence says why and what to do."""


class StoreError(ManagerError):
    """Root of the store's errors."""


class StorageUnavailable(StoreError):
    """The disk is full, read-only or failing: nothing was written, a later try may succeed."""


class StoreConflict(StoreError):
    """An event leaves a gap, or another one has its number: nothing of it was written."""


class DamagedLog(StoreError):
    """A swarm's events are not what was stored."""


class StoreVersion(StoreError):
    """A later version of Manta has written the database."""
