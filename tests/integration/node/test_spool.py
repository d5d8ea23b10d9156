"""The spool of a plane: what it says is on disk is there, whatever the disk does."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from manta.node.journal import record_file
from manta.node.plane import spool as spools
from manta.node.plane.kept_swarms import KeptSwarms
from manta.node.plane.spool import Spool, Timeline
from manta.transports.exchange.kept import Kept, KeptBroadcast, KeptLetter

ONE, OTHER = Timeline("swarm-1", "e"), Timeline("swarm-2", "e")


def end(number: int, size: int = 10) -> Kept:
    return Kept(0, "t", number, 0, (KeptLetter("id-2", "x", 0, bytes(size)),))


@contextmanager
def opened(folder: Path, node_id: str = "id-1") -> Iterator[Spool]:
    spool = Spool(folder, node_id, lambda call: call())
    try:
        yield spool
    finally:
        spool.close()


def wait(begin: Callable[[Callable[[], object]], object]) -> None:
    done = threading.Event()
    begin(done.set)
    assert done.wait(60)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond some bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_kept_is_there_again(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        assert not KeptSwarms(tmp_path).look()
        for number in range(3):
            wait(partial(spool.keep, ONE, end(number), ()))
        wait(lambda done: spool.keep(OTHER, end(7), (), done))
    assert KeptSwarms(tmp_path).look() == {"swarm-1", "swarm-2"}
    with opened(tmp_path) as spool:
        assert list(spool.untaken) == [ONE, OTHER]
        assert spool.take(ONE) == [end(0), end(1), end(2)]
        assert spool.take(ONE) == []
        wait(lambda done: spool.keep_only(ONE, [end(1)], done))
        wait(lambda done: spool.keep(ONE, end(3), (), done))
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(1), end(3)]
        spool.drop(ONE)
        spool.drop(OTHER)
    assert not KeptSwarms(tmp_path).look()


def test_attempts_that_end_together_share_a_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(spools, "sync", synced.append)
    with opened(tmp_path) as spool:
        gate, ends = threading.Event(), [threading.Event() for _ in range(20)]

        def busy() -> None:
            gate.wait(60)

        spool.do(busy)
        for number, ended in enumerate(ends):
            spool.keep(ONE, end(number), (), ended.set)
        gate.set()
        assert all(ended.wait(60) for ended in ends)
        assert len(synced) <= 2


def test_what_a_full_disk_does_not_take_waits_and_the_node_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(spools, "RETRY", 0.01)
    caplog.set_level(logging.INFO)
    with opened(tmp_path) as spool:
        wait(lambda done: spool.keep(ONE, end(0), (), done))
        ended, after = threading.Event(), threading.Event()
        with full_disk():
            spool.keep(ONE, end(1, size=1000), (), ended.set)
            spool.keep(ONE, end(2), (), after.set)  # it waits for the one before
            wait(lambda done: spool.do(lambda: None, done))
            wait(lambda done: spool.keep(OTHER, end(3), (), done))  # and no other does
            assert not ended.is_set()
            assert not after.is_set()
        assert ended.wait(60)
        assert after.wait(60)
    assert "their ends wait" in caplog.text
    assert "is kept again" in caplog.text
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(0), end(1, size=1000), end(2)]


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is set, no file that is there is written anew; the disk takes a little yet."""
    monkeypatch.setattr(record_file, "FIRST", 0.01)
    monkeypatch.setattr(record_file, "LONGEST", 0.02)
    is_full = threading.Event()
    rewrite = record_file.RecordFile.rewrite

    def refused(file: record_file.RecordFile[object], records: Iterable[bytes]) -> None:
        if is_full.is_set() and file.size:
            raise OSError(28, "No space left on device")
        rewrite(file, records)

    monkeypatch.setattr(record_file.RecordFile, "rewrite", refused)
    return is_full


def test_ends_go_on_while_there_is_no_room_to_write_a_file_anew(
    tmp_path: Path, no_copies: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with opened(tmp_path) as spool:
        for number in range(3):
            wait(partial(spool.keep, ONE, end(number), ()))
        no_copies.set()
        first, second = threading.Event(), threading.Event()
        spool.keep_only(ONE, [end(1), end(2)], first.set)
        for number in (3, 4):
            wait(partial(spool.keep, ONE, end(number), ()))
        spool.keep_only(ONE, [end(2), end(3), end(4)], second.set)
        for number in (5, 6):
            wait(partial(spool.keep, ONE, end(number), ()))
        assert not first.is_set()
        assert not second.is_set()
        with opened(copied(tmp_path)) as other:
            assert other.take(ONE) == [end(number) for number in range(7)]
        no_copies.clear()
        assert first.wait(60)
        assert second.wait(60)
    assert caplog.text.count("holds what nobody needs any more") == 1
    assert caplog.text.count("holds only what is needed again") == 1
    assert "their ends wait" not in caplog.text
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(number) for number in range(2, 7)]


def copied(folder: Path) -> Path:
    """As it is found after a loss of the process."""
    to = folder.with_name("copied")
    shutil.copytree(folder, to)
    return to


def test_a_timeline_that_is_over_goes_though_it_could_not_be_written_anew(
    tmp_path: Path, no_copies: threading.Event
) -> None:
    with opened(tmp_path) as spool:
        for number in range(2):
            wait(partial(spool.keep, ONE, end(number), ()))
        no_copies.set()
        done = threading.Event()
        spool.keep_only(ONE, [end(1)], done.set)
        spool.drop(ONE)
        assert done.wait(60)
        assert not KeptSwarms(tmp_path).look()


def test_what_is_written_anew_leaves_room_on_the_disk_for_what_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_copies: threading.Event
) -> None:
    monkeypatch.setattr(record_file, "SPARE", 1 << 60)
    with opened(tmp_path) as spool:
        for number in range(2):
            wait(partial(spool.keep, ONE, end(number), ()))
        done = threading.Event()
        spool.keep_only(ONE, [end(1)], done.set)
        wait(partial(spool.keep, ONE, end(2), ()))
        assert not done.is_set()
        monkeypatch.setattr(record_file, "SPARE", 0)
        assert done.wait(60)


def test_a_file_that_cannot_be_synced_has_no_other_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "RETRY", 0.01)
    with opened(tmp_path) as spool:
        wait(partial(spool.keep, ONE, end(0), ()))
        (path,) = tmp_path.glob("*.spool")
        is_bad = threading.Event()
        is_bad.set()

        def sync(fd: int) -> None:
            if is_bad.is_set() and Path(f"/proc/self/fd/{fd}").readlink().name.startswith(
                path.stem
            ):
                raise OSError(5, "Input/output error")
            os.fsync(fd)

        monkeypatch.setattr(spools, "sync", sync)
        ended = threading.Event()
        spool.keep(ONE, end(1), (), ended.set)
        wait(partial(spool.keep, OTHER, end(2), ()))
        wait(partial(spool.keep, OTHER, end(3), ()))
        assert not ended.is_set()
        is_bad.clear()
        assert ended.wait(60)


def test_a_sync_that_failed_is_believed_only_of_what_is_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spools, "RETRY", 0.01)
    failures = [OSError(5, "Input/output error")]

    def sync(fd: int) -> None:
        if failures:
            raise failures.pop()
        os.fsync(fd)

    rewritten: list[Path] = []
    rewrite = record_file.RecordFile.rewrite

    def counted(file: record_file.RecordFile[object], records: object) -> None:
        rewritten.append(file.path)
        rewrite(file, records)  # type: ignore[arg-type]

    monkeypatch.setattr(spools, "sync", sync)
    monkeypatch.setattr(record_file.RecordFile, "rewrite", counted)
    with opened(tmp_path) as spool:
        wait(lambda done: spool.keep(ONE, end(0), (), done))
        assert len(rewritten) == 2  # when it was begun, and then
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(0)]


@pytest.mark.parametrize("data", [b"", b"garbage", bytes(1000)])
def test_a_file_that_is_none_is_no_more_than_lost(
    tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0123.spool").write_bytes(data)
    with opened(tmp_path) as spool:
        assert not spool.untaken
        wait(lambda done: spool.keep(ONE, end(0), (), done))
    assert "0123.spool" in caplog.text


def test_the_spool_of_another_node_is_deleted(tmp_path: Path) -> None:
    with opened(tmp_path, "id-1") as spool:
        wait(lambda done: spool.keep(ONE, end(0), (), done))
    with opened(tmp_path, "id-2") as spool:
        assert not spool.untaken
    assert not KeptSwarms(tmp_path).look()


def test_a_record_that_was_being_written_is_cut_off(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        wait(lambda done: spool.keep(ONE, end(0), (), done))
    path = next(tmp_path.glob("*.spool"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[-20:])
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(0)]
        wait(lambda done: spool.keep(ONE, end(1), (), done))
    with opened(tmp_path) as spool:
        assert spool.take(ONE) == [end(0), end(1)]


def test_values_that_nothing_names_are_deleted_at_the_start(tmp_path: Path) -> None:
    with opened(tmp_path) as spool:
        (spool.values / "00ff").write_bytes(b"left")
    with opened(tmp_path) as spool:
        assert list(spool.values.iterdir()) == []


def test_nothing_is_said_to_be_kept_after_a_plane_that_ends_on_a_full_disk(tmp_path: Path) -> None:
    said = Kept(0, "t", 0, 0, (KeptBroadcast("m", 1, bytes(1000)),))
    ended = threading.Event()
    with full_disk(), opened(tmp_path) as spool:
        spool.keep(ONE, said, (), ended.set)
    assert not ended.is_set()
    with opened(tmp_path) as spool:
        assert not spool.take(ONE)
