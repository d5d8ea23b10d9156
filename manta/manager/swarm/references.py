"""The blobs that a swarm's events name."""

from __future__ import annotations

from collections.abc import Iterator

from manta.manager.swarm.events import Created, EntriesReceived, GlobalSet, SwarmEvent
from manta.protocol.exchange import Broadcasted, Checkpointed, Contributed, Sent
from manta.protocol.node import GlobalWritten, JournalEntry, ResultWritten, TaskEnded
from manta.protocol.spec import SwarmSpec
from manta.protocol.values import BlobRef


def of_event(event: SwarmEvent) -> Iterator[BlobRef]:
    match event:
        case Created(spec=spec):
            yield from of_spec(spec)
        case EntriesReceived(entries=entries):
            for entry in entries:
                yield from of_entry(entry)
        case GlobalSet(value=BlobRef() as blob):
            yield blob


def of_spec(spec: SwarmSpec) -> Iterator[BlobRef]:
    for module in spec.modules:
        if module.package is not None:
            yield module.package
    for value in spec.globals.values():
        if isinstance(value, BlobRef):
            yield value


def of_entry(entry: JournalEntry) -> Iterator[BlobRef]:
    match entry:
        case ResultWritten(value=BlobRef() as blob) | GlobalWritten(value=BlobRef() as blob):
            yield blob
        case TaskEnded(output=BlobRef() as blob):
            yield blob
        case (
            Broadcasted(value=BlobRef() as blob)
            | Sent(value=BlobRef() as blob)
            | Contributed(value=BlobRef() as blob)
            | Checkpointed(value=BlobRef() as blob)
        ):
            yield blob
