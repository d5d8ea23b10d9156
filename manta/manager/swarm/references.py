"""The blobs that a swarm's events name."""

from __future__ import annotations

from collections.abc import Iterator

from manta.manager.swarm.events import Created, EntriesReceived, Entry, GlobalSet, SwarmEvent
from manta.protocol.node import ResultWritten, TaskEnded, TaskError
from manta.protocol.spec import SwarmSpec
from manta.protocol.values import BlobRef


def of_event(event: SwarmEvent) -> Iterator[BlobRef]:
    match event:
        case Created(spec=spec):
            yield from of_spec(spec)
        case EntriesReceived(entries=entries):
            for entry in entries:
                yield from of_entry(entry)
        case GlobalSet(value=value):
            yield from _blobs(value)


def of_spec(spec: SwarmSpec) -> Iterator[BlobRef]:
    return _blobs(*(module.package for module in spec.modules), *spec.globals.values())


def of_entry(entry: Entry) -> Iterator[BlobRef]:
    """What tasks write is the `value` of an entry; what they return, the `output` of its end,
    which may name packages as well. A result that stays on its node is none of the swarm's blobs
    here."""
    if isinstance(entry, ResultWritten) and entry.held:
        return iter(())
    if isinstance(entry, TaskEnded):
        return _blobs(entry.output, packages_of(entry.error))
    return _blobs(getattr(entry, "value", None))


def packages_of(error: TaskError | None) -> BlobRef | None:
    """The list of packages that an attempt had, if the error's bundle names one."""
    return None if error is None or error.bundle is None else error.bundle.packages


def _blobs(*values: object) -> Iterator[BlobRef]:
    return (value for value in values if isinstance(value, BlobRef))
