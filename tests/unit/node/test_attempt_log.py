from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from manta.node.state.attempt_log import AttemptLog, read
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec
from tests.support.damage import damaged

MODULE = ModuleSpec("m", datasets=("declared",))


def order(index: int = 0, user: str = "ada@example.org") -> Assignment:
    at = Instance("s1", "worker", index, 3, 1)
    return Assignment(at, MODULE, "fl", "n", 1, datasets=("declared", "asked"), user=user)


def test_an_attempt_is_told_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "attempts.log"
    log = AttemptLog(path, 1 << 20, 1.0)
    log.began(order(0), 2.0)
    log.began(order(1), 3.0)
    log.ended(order(0).instance, "FINISHED", 4.0)
    log.ended(order(7).instance, "REFUSED", 4.0)  # it never began
    (first, second), lines = read(path, running=True)
    assert not lines
    assert (first.user, first.swarm, first.swarm_id) == ("ada@example.org", "fl", "s1")
    assert (first.task, first.iteration, first.attempt) == ("worker.0", 3, 1)
    assert first.datasets == ("declared", "asked")
    assert (first.began, first.ended, first.status) == (2.0, 4.0, "FINISHED")
    assert (second.task, second.ended, second.status) == ("worker.1", None, "RUNNING")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_daemon_ran_was_interrupted(tmp_path: Path) -> None:
    path = tmp_path / "attempts.log"
    AttemptLog(path, 1 << 20, 1.0).began(order(), 2.0)
    [ran], _ = read(path, running=False)
    assert (ran.ended, ran.status) == (None, "INTERRUPTED")
    AttemptLog(path, 1 << 20, 9.0)
    for running in (False, True):
        [ran], _ = read(path, running=running)
        assert (ran.ended, ran.status) == (9.0, "INTERRUPTED")


def test_it_is_rotated_and_read_across_its_parts(tmp_path: Path) -> None:
    path = tmp_path / "attempts.log"
    log = AttemptLog(path, 2000, 1.0)
    for number in range(100):
        log.began(order(number), float(number))
        log.ended(order(number).instance, "FINISHED", number + 0.5)
    parts = sorted(tmp_path.iterdir())
    assert len(parts) == 4
    assert sum(part.stat().st_size for part in parts) < 4 * 2500
    numbers = [int(ran.began) for ran in read(path, running=True)[0]]
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) > 5


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"{}\n", b'{"kind": "attempt"', b"\0" * 50])
def test_a_damaged_line_costs_itself_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "attempts.log"
    log = AttemptLog(path, 1 << 20, 1.0)
    log.began(order(0), 2.0)
    with path.open("ab") as file:
        file.write(damage)
    log.began(order(1), 3.0)
    log.began(order(2), 4.0)
    found, lines = read(path, running=True)
    assert [ran.task for ran in found] == ["worker.0", "worker.1", "worker.2"]
    assert lines == 1


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_log_is_told_and_goes_on(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "attempts.log"
    log = AttemptLog(path, 1 << 20, 1.0)
    for number in range(5):
        log.began(order(number), float(number))
    path.write_bytes(damaged(path.read_bytes(), Random(seed)))
    log = AttemptLog(path, 1 << 20, 8.0)
    log.began(order(7), 9.0)
    found, lines = read(path, running=True)
    assert (found[-1].task, found[-1].status) == ("worker.7", "RUNNING")
    assert len(found) <= 6
    assert lines <= path.read_bytes().count(b"\n")


def test_a_disk_that_is_full_in_the_middle_of_a_line_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "attempts.log"
    log = AttemptLog(path, 1 << 20, 1.0)
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: real(fd, data[:20]))
        log.began(order(0), 2.0)
    assert "attempts.log lacks an attempt: No space left on device" in caplog.text
    log.began(order(1), 3.0)
    found, lines = read(path, running=True)
    assert ([ran.task for ran in found], lines) == (["worker.1"], 0)


def test_a_disk_that_takes_nothing_is_told_and_costs_no_attempt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = AttemptLog(tmp_path / "missing" / "attempts.log", 1 << 20, 1.0)
    log.began(order(), 2.0)
    assert "attempts.log lacks an attempt: No such file" in caplog.text
