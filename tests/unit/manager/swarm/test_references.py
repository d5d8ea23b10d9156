"""Every place of the protocol that can hold a blob is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from manta.manager.swarm import references
from manta.manager.swarm.events import Created, EntriesReceived, GlobalSet
from manta.protocol.exchange import Broadcasted, Checkpointed, Contributed, Sent
from manta.protocol.node import GlobalWritten, Instance, ResultWritten, TaskEnded
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline

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
