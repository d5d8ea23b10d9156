"""Every place of the protocol that can hold a blob is looked at."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from manta.manager import references
from manta.manager.swarm_events import Created, EntriesReceived, GlobalSet, SwarmEvent
from manta.protocol.exchange import Broadcasted, Checkpointed, Contributed, Sent
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    ResultWritten,
    TaskEnded,
)
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline, Payload

BLOB, OTHER = BlobRef("a" * 64, 1), BlobRef("b" * 64, 2)
AT = Instance("s", "t", 0, 0)


@pytest.mark.parametrize(
    "entry",
    [
        ResultWritten(AT, "tag", BLOB),
        GlobalWritten(AT, "tag", BLOB),
        TaskEnded(AT, "FINISHED", 0.0, output=BLOB),
        Broadcasted(AT, "tag", BLOB),
        Sent(AT, "n", "tag", BLOB),
        Contributed(AT, 0, "gather", BLOB),
        Checkpointed(AT, BLOB),
    ],
)
def test_blobs_of_entries(entry: Any) -> None:
    assert list(references.of_entry(entry)) == [BLOB]
    event = EntriesReceived("n", 1, (entry, entry))
    assert list(references.of_event(event)) == [BLOB, BLOB]


def test_blobs_of_specs_and_globals() -> None:
    spec = SwarmSpec(
        "name",
        (TaskSpec("t", "m"),),
        (ModuleSpec("m", BLOB), ModuleSpec("image", image="python:3.12")),
        globals={"model": OTHER, "small": Inline(b"")},
    )
    assert set(references.of_event(Created(spec))) == {BLOB, OTHER}
    assert list(references.of_event(GlobalSet("tag", BLOB))) == [BLOB]
    assert list(references.of_event(GlobalSet("tag", Inline(b"")))) == []


def test_what_instances_say_to_each_other_is_not_needed_for_good() -> None:
    said = EntriesReceived("n", 1, (Broadcasted(AT, "t", BLOB), ResultWritten(AT, "t", OTHER)))
    assert list(references.lasting(said)) == [OTHER]
    assert set(references.of_event(said)) == {BLOB, OTHER}
    assert list(references.lasting(GlobalSet("tag", BLOB))) == [BLOB]


def names_a_blob(kind: Any) -> bool:
    hints = msgspec.inspect.type_info(kind)
    return "BlobRef" in str(hints)


def test_no_entry_and_no_event_that_can_name_a_blob_is_forgotten() -> None:
    assert BlobRef in get_args(Payload)
    entries = {kind for kind in get_args(JournalEntry) if names_a_blob(kind)}
    passing = {Broadcasted, Sent, Contributed, Checkpointed}
    assert entries == {ResultWritten, GlobalWritten, TaskEnded} | passing
    events = {kind for kind in get_args(SwarmEvent) if names_a_blob(kind)}
    assert events == {Created, EntriesReceived, GlobalSet}
