"""The manager's own errors. A request that is refused raises `manta.actors.Refused`."""

from __future__ import annotations


class ManagerError(Exception):
    """Root of this package's errors."""


class StartError(ManagerError):
    """The manager cannot start; the message says why and what to do."""


class StoreError(ManagerError):
    """Root of the store's errors."""


class StorageUnavailable(StoreError):
    """The disk is full, read-only or failing: nothing was written; a later try may succeed."""


class StoreConflict(StoreError):
    """An event leaves a gap, or another event has its number, or something is larger than can be
    stored: nothing was written, and a later try is no better."""


class DamagedLog(StoreError):
    """A swarm's event log cannot be read."""


class StoreVersion(StoreError):
    """The database was written by a later version of Manta."""


class NotLoaded(ManagerError):
    """A swarm would take more memory than there is for it."""


class RecoveryError(ManagerError):
    """A password cannot be reset; the sentence says why."""
