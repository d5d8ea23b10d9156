from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import msgspec
import pytest

from manta.console.rotating_file import RotatingFile
from manta.node.daemon import places
from manta.node.daemon.background import current_status, record
from manta.node.errors import IdentityError, StateInUse
from manta.node.state import (
    Identity,
    Member,
    StateFolder,
    StateLock,
    Status,
    hardware_id,
    remove_folder,
)
from manta.transports.codec.stored import Damaged
from manta.transports.errors import KeyFileError
from tests.support.damage import damaged

STATUS = Status(7, "default", "connected", "All is well.", "tcp://m:1", "edge", 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "state")


def test_one_daemon_to_a_folder(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StateLock, "PATIENCE", 0.0)
    assert folder.running_pid() is None
    lock = folder.open()
    assert folder.running_pid() == os.getpid()
    with pytest.raises(StateInUse, match=rf"process {os.getpid()}"):
        folder.open()
    lock.release()
    assert folder.running_pid() is None
    folder.open().release()


def test_scratch_of_tasks_that_are_gone_is_swept(folder: StateFolder) -> None:
    folder.open().release()
    (folder.tasks / "old").mkdir()
    folder.open().release()
    assert list(folder.tasks.iterdir()) == []


def test_a_link_in_the_place_of_a_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    (outside := tmp_path / "outside" / "open").mkdir(parents=True)
    outside.chmod(0o755)
    link = tmp_path / "task"
    link.symlink_to(tmp_path / "outside")
    remove_folder(link)
    assert not link.is_symlink()
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_others_may_enter_is_refused(folder: StateFolder) -> None:
    folder.path.mkdir(mode=0o755)
    with pytest.raises(KeyFileError, match="chmod 700"):
        folder.open()


def test_the_key_is_made_once(folder: StateFolder) -> None:
    first = folder.key()
    assert folder.key() == first
    assert folder.key_file.stat().st_mode & 0o777 == 0o600


def test_identity(folder: StateFolder) -> None:
    assert folder.read_identity() is None
    identity = Identity("k" * 40, "n1", "c1", "edge")
    folder.write_identity(identity)
    assert folder.read_identity() == identity
    assert folder.identity_file.stat().st_mode & 0o777 == 0o600
    folder.identity_file.write_text('{"manager_key": "only this"}')
    assert folder.read_identity() == Identity("only this")
    folder.identity_file.write_text("{")
    with pytest.raises(IdentityError, match="is damaged"):
        folder.read_identity()


def test_status(folder: StateFolder) -> None:
    folder.path.mkdir()
    assert folder.read_status() is None
    folder.write_status(STATUS)
    assert folder.read_status() == STATUS
    assert current_status(folder) is None  # none runs
    folder.status_file.write_text("nonsense")
    with pytest.raises(Damaged, match=r"status\.json is damaged"):
        folder.read_status()
    assert current_status(folder) is None


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_status_is_told(folder: StateFolder, seed: int) -> None:
    folder.path.mkdir()
    folder.write_status(STATUS)
    whole = folder.status_file.read_bytes()
    folder.status_file.write_bytes(damaged(whole, Random(seed)))
    told = record("edge", folder)
    if told["state"] != "unknown":  # JSON has no checksum: a letter may have become another one
        assert folder.read_status() is not None
        return
    assert told["sentence"].startswith(f"{folder.status_file} is damaged (")
    assert "how the node stands is not known; (re)start the node" in told["sentence"]


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_membership_is_told_and_costs_that_node_alone(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    seed: int,
) -> None:
    monkeypatch.setenv("MANTA_HOME", str(tmp_path))
    for number in (1, 2):
        each = places.state_folder(f"edge-{number}")
        each.path.mkdir(parents=True, mode=0o700)
        each.write_member(Member("edge", number, "edge", is_shared=True))
    file = places.state_folder("edge-1").member_file
    file.write_bytes(damaged(file.read_bytes(), Random(seed)))
    found = places.members()
    assert found["edge-2"] == Member("edge", 2, "edge", is_shared=True)
    said = capsys.readouterr().err
    assert ("edge-1" in found) == (not said)
    if said:
        assert said.startswith(f"Note: {file} is damaged (")
        assert "`manta_node stop edge-1`" in said
        with pytest.raises(Damaged):
            places.config_of("edge-1")


def test_the_status_of_a_daemon_before_the_one_that_runs_is_not_current(
    folder: StateFolder,
) -> None:
    lock = folder.open()
    assert current_status(folder) is None
    folder.write_status(STATUS)
    assert current_status(folder) is None
    own = msgspec.structs.replace(STATUS, pid=os.getpid())
    folder.write_status(own)
    assert current_status(folder) == own
    lock.release()
    assert current_status(folder) is None


def test_hardware_ids_differ_by_configuration() -> None:
    if hardware_id("a"):
        assert hardware_id("a") != hardware_id("b")
        assert hardware_id("a") == hardware_id("a")


def test_logs_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    handler = RotatingFile(path, 100)
    for number in range(20):
        record = logging.LogRecord("x", 20, "f", 1, "line %02d " + "." * 20, (number,), None)
        handler.emit(record)
    handler.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "node.log",
        "node.log.1",
        "node.log.2",
        "node.log.3",
    ]
    assert "line 19" in path.read_text()
    assert all(p.stat().st_size <= 100 for p in tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["_open", "os.replace"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_log_that_cannot_be_put_aside_keeps_its_descriptor_and_the_older_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, times: int
) -> None:
    path = tmp_path / "node.log"
    handler = RotatingFile(path, 100)
    told: list[logging.LogRecord] = []
    monkeypatch.setattr(handler, "handleError", told.append)

    def say(text: str) -> None:
        handler.emit(logging.LogRecord("x", 20, "f", 1, text + "." * 60, (), None))

    for text in ("first", "second", "third"):
        say(text)

    def full(source: Path, target: Path | None = None) -> None:
        if target is None or source != path.with_name("node.log.1"):
            raise OSError(28, "No space left on device")
        real(source, target)  # it fails on the way

    real = os.replace
    with monkeypatch.context() as patched:
        patched.setattr(f"manta.console.rotating_file.{failing}", full)
        for _ in range(times):
            say("left out")
    assert len(told) == times
    others = tmp_path / "database"
    others.write_bytes(b"not a log")
    fd = os.open(others, os.O_RDWR)
    try:
        for text in ("fourth", "fifth"):
            say(text)
        assert others.read_bytes() == b"not a log"
        os.fstat(fd)
    finally:
        os.close(fd)
        handler.close()
    kept = [path.with_name(f"node.log.{number}") for number in (3, 2, 1)] + [path]
    assert [each.read_text().partition(".")[0] for each in kept] == [
        "second", "third", "fourth", "fifth",
    ]  # fmt: skip
    assert not os.path.exists(tmp_path / "node.log.new")


def test_a_log_that_somebody_deleted_is_written_anew_and_the_older_ones_stay(
    tmp_path: Path,
) -> None:
    path = tmp_path / "node.log"
    handler = RotatingFile(path, 100)
    for text in ("first", "second", "third", "fourth"):
        if text == "third":
            path.unlink()
        handler.emit(logging.LogRecord("x", 20, "f", 1, text + "." * 60, (), None))
    handler.close()
    assert path.read_text().startswith("fourth")
    assert path.with_name("node.log.2").read_text().startswith("first")


def test_a_descriptor_of_the_log_is_not_handed_to_children(tmp_path: Path) -> None:
    handler = RotatingFile(tmp_path / "node.log", 10)
    for _ in range(3):
        handler.emit(logging.LogRecord("x", 20, "f", 1, "line", (), None))
    assert not os.get_inheritable(handler._fd)
    handler.close()


def test_one_entry_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "node.log"
    handler = RotatingFile(path, 1_000_000)
    for text in ("x" * 4_000_000, "short"):
        handler.emit(logging.LogRecord("x", 20, "f", 1, text, (), None))
    handler.close()
    first, second = path.read_text().splitlines()
    assert len(first) < 70_000
    assert first.endswith(" ... (4000001 bytes, cut)")
    assert second == "short"


def test_what_goes_to_stderr_goes_along_when_that_is_the_log(tmp_path: Path) -> None:
    """A library that ends the process says why there, and nowhere else."""
    path = tmp_path / "node.log"
    code = (
        "import logging, os, pathlib, sys\n"
        "from manta.console.rotating_file import RotatingFile\n"
        f"handler = RotatingFile(pathlib.Path({str(path)!r}), 100)\n"
        "for number in range(20):\n"
        "    handler.emit(logging.LogRecord('x', 20, 'f', 1, 'line %02d', (number,), None))\n"
        "    os.write(2, b'said %02d\\n' % number)\n"
    )
    with path.open("ab") as output:
        subprocess.run([sys.executable, "-c", code], stderr=output, check=True)
    assert path.read_text().splitlines()[-2:] == ["line 19", "said 19"]
    assert all(each.stat().st_size <= 120 for each in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 4
