"""Results that stay on the disk of the node that made them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from manta.actors.replies import Reply
from manta.node.blobs.held_results import HeldResults
from manta.node.blobs.tiered_depot import TieredDepot
from manta.node.journal.files import Journals
from manta.node.link.held_results import HeldLink
from manta.protocol.node import Instance, JournalAck, ResultWritten
from manta.protocol.spread import FreedResults, FreeResults
from manta.protocol.values import BlobRef
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.errors import BlobMissing, BlobRefused


@pytest.fixture
def values(tmp_path: Path):
    depot = TieredDepot(
        MemoryDepot(1 << 20), FileDepot(tmp_path / "values", sync=False), largest=1000
    )
    yield depot
    depot.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


@pytest.mark.parametrize("size", [500, 5000])
def test_they_outlive_the_value_and_the_daemon(values, folder, size: int) -> None:
    held = HeldResults(folder, 1 << 20)
    digest = values.put(bytes(size))
    held.keep("swarm", digest, values)
    values.delete(digest)
    held = HeldResults(folder, 1 << 20)
    assert held.swarms == ["swarm"]
    assert held.named() == [("swarm", digest)]
    assert held.has("swarm", digest)
    assert not held.has("other", digest)
    values.take_from(held.depot_of(digest), digest)
    assert values.size(digest) == size


def test_they_are_freed_with_their_swarm(values, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = values.put(bytes(8000))
    held.keep("one", digest, values)
    with pytest.raises(BlobRefused, match="8000 of the 10000 bytes are used"):
        held.keep("two", digest, values)
    held.free("one")
    held.free("never there")
    assert digest not in held
    with pytest.raises(BlobMissing):
        held.depot_of(digest)
    assert list(folder.iterdir()) == []
    held.keep("two", digest, values)
    assert digest in held


def test_the_bound_counts_what_is_there_at_the_start(values, folder) -> None:
    HeldResults(folder, 10_000).keep("swarm", values.put(bytes(8000)), values)
    with pytest.raises(BlobRefused, match="result_disk_mb"):
        HeldResults(folder, 10_000).keep("swarm", values.put(bytes(3000)), values)


@pytest.mark.parametrize("name", ["", "..", "a/b", "x" * 300])
def test_no_name_leads_out_of_the_folder(values, folder, name: str) -> None:
    with pytest.raises(BlobRefused, match="no swarm's id"):
        HeldResults(folder, 10_000).keep(name, values.put(b"x"), values)


class Slow(TieredDepot):
    """Copies when it may."""

    def __init__(self, folder: Path) -> None:
        super().__init__(MemoryDepot(1 << 20), FileDepot(folder, sync=False), largest=1000)
        self.began, self.may = threading.Event(), threading.Event()

    def copy_to(self, depot: FileDepot, digest: str) -> None:
        self.began.set()
        assert self.may.wait(60)
        super().copy_to(depot, digest)


@pytest.fixture
def slow(tmp_path: Path):
    depot = Slow(tmp_path / "values")
    yield depot
    depot.close()


def test_what_two_keep_at_a_time_is_counted_once(slow, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = slow.put(bytes(8000))
    with ThreadPoolExecutor(2) as pool:
        kept = [pool.submit(held.keep, "swarm", digest, slow) for _ in range(2)]
        assert slow.began.wait(60)
        slow.may.set()
        for one in kept:
            one.result(60)
    held.free("swarm")
    held.keep("other", slow.put(bytes(9000)), slow)  # there is room for it again


def test_a_swarm_that_is_removed_meanwhile_leaves_nothing(slow, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = slow.put(bytes(8000))
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(held.keep, "swarm", digest, slow)
        assert slow.began.wait(60)
        held.free("swarm")
        slow.may.set()
        assert isinstance(kept.exception(60), BlobMissing | BlobRefused)
    assert not held.has("swarm", digest)
    with pytest.raises(BlobMissing):
        held.depot_of(digest)
    assert list(folder.iterdir()) == []
    held.keep("swarm", digest, slow)
    assert held.depot_of(digest).size(digest) == 8000


def test_it_is_copied_on_another_thread(slow, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = slow.put(bytes(8000))
    kept = held.soon(held.keep, "swarm", digest, slow)
    assert slow.began.wait(60)
    assert not kept.done()
    slow.may.set()
    kept.result(60)
    held.close()
    assert held.has("swarm", digest)


def test_what_users_delete_goes_unless_somebody_keeps_it_just_now(values, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = values.put(bytes(8000))
    held.keep("swarm", digest, values)
    since, needed = held.needed("swarm")
    assert needed == {digest}  # its result is not in the journal yet
    assert held.needed("other") == (since, set())
    assert not held.drop("swarm", digest, since)
    held.said("swarm", digest)
    assert held.needed("swarm") == (since, set())
    held.keep("swarm", digest, values)
    held.said("swarm", digest)
    assert not held.drop("swarm", digest, since)
    assert held.depot_of(digest).size(digest) == 8000
    since, _ = held.needed("swarm")
    assert held.drop("swarm", digest, since)
    assert not held.has("swarm", digest)
    assert held.sizes() == {}
    assert held.drop("swarm", digest, since)
    held.keep("swarm", values.put(bytes(9000)), values)  # there is room for it again


class Answer(Reply):
    def __init__(self) -> None:
        super().__init__()
        self.values: list[Any] = []

    def set(self, value: Any = None) -> bool:
        self.values.append(value)
        return True


class Actor:
    """Whose thread is this one, and that of the disk too, once that is let."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Future[Any], Callable[[Any, BaseException | None], None]]] = []

    def pipe(self, future: Future[Any], then: Callable[[Any, BaseException | None], None]) -> None:
        self.jobs.append((future, then))

    def go_on(self) -> None:
        jobs, self.jobs = self.jobs, []
        for future, then in jobs:
            then(future.result(60), None)


def test_what_another_result_names_that_the_manager_heard_of_meanwhile_is_kept(
    values, folder, tmp_path
) -> None:
    """It hears of the deletion, then that the manager has the other result; the disk is busy."""
    journals = Journals(tmp_path / "journal", FileDepot(tmp_path / "spool"), lambda: 0.0)
    held, actor, at = HeldResults(folder, 1 << 20), Actor(), Instance("swarm", "w", 0, 0)
    link = HeldLink(actor, held, journals, lambda *_: None)  # type: ignore[arg-type]
    digest = values.put(bytes(8000))
    held.keep("swarm", digest, values)
    entry = ResultWritten(at, "a", BlobRef(digest, 8000), held=True)
    number = journals.append(entry)
    held.said("swarm", digest)
    is_busy = threading.Event()
    held.soon(is_busy.wait, 20)
    told = Answer()
    link.delete(FreeResults("swarm", (digest,)), told)
    journals.acknowledge(JournalAck("swarm", number))
    is_busy.set()
    actor.go_on()
    assert told.values == [FreedResults((digest,))]
    assert held.has("swarm", digest)
    again = Answer()
    link.delete(FreeResults("swarm", (digest,)), again)
    actor.go_on()
    assert again.values == [FreedResults()]
    assert not held.has("swarm", digest)
    held.close()
    journals.close()


def test_what_is_damaged_is_held_no_longer(values, folder) -> None:
    held = HeldResults(folder, 10_000)
    digest = values.put(bytes(8000))
    held.keep("swarm", digest, values)
    held.drop_damaged(digest)
    path = held.depot_of(digest).path(digest)
    path.unlink()
    path.write_bytes(b"x" * 8000)
    held.drop_damaged(digest)
    assert digest not in held
    assert not path.exists()
