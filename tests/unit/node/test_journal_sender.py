"""What becomes of a value that the manager does not take."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manta.actors import Refused
from manta.node.journal.files import Journals
from manta.node.link.journal_sender import JournalSender, SendJournal, Why
from manta.node.link.peer_hub import BLOB_LOST, BLOB_REFUSED, BLOB_TOO_LARGE
from manta.protocol.node import Instance, JournalBatch, LogBatch, ResultWritten, TaskStarted
from manta.protocol.values import BlobRef
from manta.transports.blobs.file_depot import FileDepot

I0, OTHER = Instance("s", "worker", 0, 0), Instance("t", "worker", 0, 0)


class Link:
    """The actor that owns the sender, and the peer hub: each push ends as a test says."""

    def __init__(self, folder: Path) -> None:
        self.spool = FileDepot(folder / "spool", sync=False)
        self.journals = Journals(folder / "journal", self.spool, lambda: 100.0)
        self.clock = SimpleNamespace(now=lambda: 100.0, wall=lambda: 5.0)
        self.log = logging.getLogger("link")
        self.system = SimpleNamespace(ref=lambda path: self)
        self.pushes: list[tuple[BlobRef, Future[None]]] = []
        self.sent: list[Any] = []
        self.sender = JournalSender(self, self.journals)  # type: ignore[arg-type]
        self.sender.gateway = self  # type: ignore[assignment]

    def ask_future(self, push: Any, timeout: float) -> Future[None]:
        self.pushes.append((push.blob, Future()))
        return self.pushes[-1][1]

    def pipe(self, future: Future[None], then: Callable[..., None]) -> None:
        def ended(future: Future[None]) -> None:
            then(None, future.exception())

        future.add_done_callback(ended)

    def after(self, delay: float, message: Any) -> Any:
        return SimpleNamespace(cancel=lambda: None, deadline=100.0 + delay)

    def notify(self, to: Any, message: Any) -> bool:
        if to is self:
            self.sent.append(message)
        return True

    def write(self, data: bytes, *instances: Instance) -> BlobRef:
        blob = BlobRef(self.spool.put(data), len(data))
        for instance in instances:
            self.journals.append(TaskStarted(instance, 1.0))
            self.journals.append(ResultWritten(instance, "r", blob))
        self.sender.handle(SendJournal(Why.GROWN))
        return blob

    def end(self, error: Exception | None) -> None:
        _, future = self.pushes.pop(0)
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
        self.sender.handle(SendJournal(Why.GROWN))

    def told(self) -> list[tuple[str, str]]:
        self.sender.send_due()
        batches = [one for one in self.sent if isinstance(one, LogBatch)]
        return [(one.swarm_id, line.text) for one in batches for line in one.lines]

    def entries(self) -> list[str]:
        batches = [one for one in self.sent if isinstance(one, JournalBatch)]
        return [type(entry).__name__ for one in batches for entry in one.entries]


@pytest.fixture
def link(tmp_path: Path) -> Link:
    return Link(tmp_path)


def test_that_there_is_no_room_for_a_value_is_told_once_to_whoever_waits(link: Link) -> None:
    link.write(b"value", I0, OTHER)
    for _ in range(5):
        link.end(Refused(BLOB_REFUSED, "There is no room."))
    text = "[There is no room. It is tried again each second.]"
    assert link.told() == [("s", text), ("t", text)]
    link.end(None)
    link.sender.send_due()
    assert sorted(link.entries()) == ["ResultWritten"] * 2 + ["TaskStarted"] * 2
    link.journals.close()


@pytest.mark.parametrize(
    "error", [Refused("bulk", "The manager is away."), TimeoutError("Nobody answers.")]
)
def test_a_manager_that_cannot_be_reached_is_not_told_of_there(
    link: Link, error: Exception
) -> None:
    link.write(b"value", I0)
    link.end(error)
    assert link.told() == []
    assert len(link.pushes) == 1
    link.journals.close()


@pytest.mark.parametrize("code", [BLOB_LOST, BLOB_TOO_LARGE])
def test_what_will_never_be_there_is_not_waited_for(link: Link, code: str) -> None:
    link.write(b"value", I0)
    link.end(Refused(code, "It is over."))
    assert link.told() == []
    assert not link.pushes
    assert link.entries() == ["TaskStarted", "TaskEnded"]
    link.journals.close()
