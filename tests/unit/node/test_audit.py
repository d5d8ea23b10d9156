"""What a node's audit log says of attempts, and what `manta_node who` reads in it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pytest

from manta.audit.keys import SealKey
from manta.audit.records import Head, Record
from manta.audit.verify import read as read_log
from manta.audit.verify import verify
from manta.node.state.attempts import Following, read
from manta.node.state.audit import EACH, NodeAudit, open_log
from manta.node.state.records import Identity
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    Instance,
    MetricsLogged,
    ResultWritten,
    TaskEnded,
)
from manta.protocol.spec import ModuleSpec
from manta.protocol.values import BlobRef, Inline
from tests.support.damage import damaged

SECRET = "s" * 40
DIGEST = "d" * 64
MODULE = ModuleSpec("m", BlobRef(DIGEST, 9), version="1.0.0", datasets=("declared",))
PATHS = {"declared": Path("/data/one"), "asked": Path("/data/two")}


def order(index: int = 0, user: str = "ada@example.org") -> Assignment:
    at = Instance("s1", "worker", index, 3, 1)
    return Assignment(at, MODULE, "fl", "n", 1, datasets=("declared", "asked"), user=user)


def started(folder: Path, at: float) -> NodeAudit:
    audit = open_log(folder, SECRET)
    audit.started(at, {"resources": {"scratch_mb": 1}}, version="1", pid=7)
    return audit


def killed(audit: NodeAudit) -> None:
    """What it had recorded is on the disk."""
    audit.log.close()


def records(folder: Path, act: str) -> list[dict[str, Any]]:
    return [record.about for _, record in read_log(folder) if record.act == act]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def test_an_attempt_is_told_when_it_begins_and_when_it_ends(folder: Path) -> None:
    audit = started(folder, 1.0)
    audit.began(order(0), PATHS, 2.0)
    audit.began(order(1), PATHS, 3.0)
    audit.ended(order(0).instance, "FINISHED", 4.0)
    audit.ended(order(7).instance, "REFUSED", 4.0)  # it never began
    killed(audit)
    (first, second), lines = read(folder, running=True)
    assert not lines
    assert (first.user, first.swarm, first.swarm_id) == ("ada@example.org", "fl", "s1")
    assert (first.task, first.iteration, first.attempt) == ("worker.0", 3, 1)
    assert first.datasets == ("declared", "asked")
    assert (first.began, first.ended, first.status) == (2.0, 4.0, "FINISHED")
    assert (second.task, second.ended, second.status) == ("worker.1", None, "RUNNING")


def test_which_code_had_which_data_and_what_left_is_recorded(folder: Path) -> None:
    audit, at = started(folder, 1.0), order().instance
    audit.began(order(), PATHS, 2.0)
    audit.exchanges(at, 2.5)
    audit.exchanges(at, 2.6)
    audit.left(ResultWritten(at, "model", BlobRef("e" * 64, 4000)), 3.0)
    audit.left(ResultWritten(at, "raw", BlobRef("f" * 64, 5000), held=True), 3.1)
    audit.left(GlobalWritten(at, "total", Inline(b"x" * 12)), 3.2)
    audit.left(MetricsLogged(at, {"loss": 1.0}, None, 3.3), 3.3)
    audit.left(TaskEnded(at, "FINISHED", 4.0, output=Inline(b"y")), 4.0)
    audit.ended(at, "FINISHED", 4.0)
    killed(audit)
    [began] = records(folder, "attempt-began")
    assert began["digest"] == DIGEST
    assert (began["module"], began["version"]) == ("m", "1.0.0")
    assert began["datasets"] == [
        {"name": "declared", "path": "/data/one"},
        {"name": "asked", "path": "/data/two"},
    ]
    left = [(one["what"], one.get("tag"), one["bytes"]) for one in records(folder, "value-left")]
    assert left == [
        ("result", "model", 4000),
        ("result", "raw", 5000),
        ("global", "total", 12),
        ("output", None, 1),
    ]
    assert [one.get("stays") for one in records(folder, "value-left")][:2] == [None, True]
    [ended] = records(folder, "attempt-ended")
    assert ended["left"] == {"values": 4, "bytes": 9013, "metrics": 1}
    assert len(records(folder, "exchange-opened")) == 1
    assert all(r.who == "ada@example.org" for _, r in read_log(folder) if "task" in r.about)


def test_a_flood_of_values_is_recorded_in_sum(folder: Path) -> None:
    audit, at = started(folder, 1.0), order().instance
    audit.began(order(), PATHS, 2.0)
    for number in range(20 * EACH):
        audit.left(ResultWritten(at, f"tag-{number}", Inline(b"x")), 3.0)
    audit.ended(at, "FINISHED", 4.0)
    killed(audit)
    assert len(records(folder, "value-left")) == EACH
    [ended] = records(folder, "attempt-ended")
    assert ended["left"]["values"] == ended["left"]["bytes"] == 20 * EACH


def test_what_a_killed_daemon_ran_was_interrupted(folder: Path) -> None:
    audit = started(folder, 1.0)
    audit.began(order(), PATHS, 2.0)
    killed(audit)
    [ran], _ = read(folder, running=False)
    assert (ran.ended, ran.status) == (None, "INTERRUPTED")
    audit = started(folder, 9.0)
    audit.interrupted(order().instance, 9.5)
    killed(audit)
    for running in (False, True):
        [ran], _ = read(folder, running=running)
        assert (ran.ended, ran.status, ran.user) == (9.0, "INTERRUPTED", "ada@example.org")


def test_an_attempt_of_which_only_the_end_is_left_is_shown(folder: Path) -> None:
    audit = started(folder, 1.0)
    audit.interrupted(order().instance, 9.5)
    audit.interrupted(order().instance, 9.6)
    killed(audit)
    [ran], _ = read(folder, running=True)
    assert (ran.task, ran.ended, ran.status) == ("worker.0", 9.5, "INTERRUPTED")


def test_an_attempt_may_have_the_name_of_another(folder: Path) -> None:
    audit = started(folder, 1.0)
    for at in (2.0, 5.0):
        audit.began(order(), PATHS, at)
        audit.ended(order().instance, "FINISHED", at + 1)
    killed(audit)
    found, _ = read(folder, running=True)
    assert [(ran.began, ran.ended) for ran in found] == [(2.0, 3.0), (5.0, 6.0)]


def test_enrolment_configuration_and_the_end_are_recorded(folder: Path) -> None:
    audit = started(folder, 1.0)
    audit.enrolled(2.0, Identity("key", "n1", "c1", "edge"))
    audit.gave_result("s1", BlobRef(DIGEST, 77), 3.0)
    audit.keep_head(Head(5, DIGEST), "a" * 64, 4.0)
    audit.close(5.0)
    assert [record.act for _, record in read_log(folder)] == [
        "log-begun", "node-started", "enrolled", "result-given", "log-head", "node-stopped",
    ]  # fmt: skip
    [config] = records(folder, "node-started")
    assert config["config"] == {"resources": {"scratch_mb": 1}}
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("damage", [b"\xff\xfe\n", b"{}\n", b"\0" * 50])
def test_a_damaged_line_costs_itself_alone(folder: Path, damage: bytes) -> None:
    audit = started(folder, 1.0)
    audit.began(order(0), PATHS, 2.0)
    killed(audit)
    with (folder / "000000000001.log").open("ab") as file:
        file.write(damage)
    audit = started(folder, 2.5)
    audit.began(order(1), PATHS, 3.0)
    killed(audit)
    found, lines = read(folder, running=True)
    assert [ran.task for ran in found] == ["worker.0", "worker.1"]
    assert lines == (damage[-1:] == b"\n")


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_log_is_told_and_goes_on(folder: Path, seed: int) -> None:
    audit = started(folder, 1.0)
    for number in range(5):
        audit.began(order(number), PATHS, float(number))
    killed(audit)
    for path in (folder / "000000000001.log", folder / "head.json"):
        path.write_bytes(damaged(path.read_bytes(), Random(seed)))
    audit = started(folder, 8.0)
    audit.began(order(7), PATHS, 9.0)
    killed(audit)
    found, _ = read(folder, running=True)
    assert (found[-1].task, found[-1].status) == ("worker.7", "RUNNING")
    assert verify(folder, SealKey(SECRET.encode()).public).flaws


def test_who_follows_a_log_by_what_is_added_to_it(folder: Path) -> None:
    log, none = Following(folder), Following(folder)
    log.update()  # there is none yet
    assert log.attempts(running=True) == []
    audit = started(folder, 1.0)
    audit.began(order(), PATHS, 2.0)
    audit.left(ResultWritten(order().instance, "loss", Inline(b"12345")), 3.0)
    audit.left(GlobalWritten(order().instance, "model", BlobRef(DIGEST, 1000)), 3.0)
    written = Event()
    audit.log.record(Record(3.5, "log-head"), lambda *_: written.set())
    assert written.wait(30)
    log.update()
    [ran] = log.attempts(running=True)
    assert (ran.status, ran.left) == ("RUNNING", 1005)
    path = next(folder.glob("*.log"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])  # a line that is being written
    log.update()
    assert (log.damaged, log.attempts(running=True)) == (0, [ran])
    path.write_bytes(whole)
    for _ in range(EACH):  # told in sum, and at the end
        audit.left(ResultWritten(order().instance, "loss", Inline(b"1")), 4.0)
    audit.ended(order().instance, "FINISHED", 5.0)
    killed(audit)
    log.update()
    none.update()
    [ran] = log.attempts(running=True)
    assert (ran.status, ran.left, ran.ended) == ("FINISHED", 1005 + EACH, 5.0)
    assert none.attempts(running=True) == [ran]


def test_an_order_is_recorded_with_the_key_that_signed_it(folder: Path) -> None:
    audit = started(folder, 1.0)
    audit.began(order(), PATHS, 2.0)
    killed(audit)
    [began] = records(folder, "attempt-began")
    assert began["key"] == "none"
