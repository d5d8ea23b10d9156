"""A manager whose database is older than its nodes, or lost, says so and goes on as after a
restored backup."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from manta.manager.errors import StartError
from manta.manager.home import Home, RestoredFile
from manta.manager.service import Manager
from manta.manager.store import actor
from manta.protocol.node import LogLine, MetricsLogged, ResultWritten, TaskEnded
from manta.protocol.user import (
    ExplainSwarm,
    GetManagerStatus,
    GetSwarm,
    GetTasks,
    ReadFeed,
    SendSwarm,
    StartSwarm,
    WaitSwarm,
)
from manta.protocol.values import Inline
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.test_lifecycle import one_task
from tests.integration.manager.test_swarms import deploy, silent, work


def copied(bench, to: Path) -> Path:
    """The file alone, as somebody copies it who knows nothing of logs."""
    to.mkdir(exist_ok=True)
    return Path(shutil.copy(bench.home / "manta.db", to))


def put_back(bench, copy: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (bench.home / f"manta.db{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, bench.home / "manta.db")


def test_the_database_alone_is_worth_copying(
    bench, admin: Client, nodes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(actor, "TIDY_AFTER", 0.2)
    bench.restart()
    [node] = nodes(1, silent)
    swarm = deploy(admin, one_task())
    wait_until(lambda: node.ran)
    for number in range(50):
        node.say(swarm, MetricsLogged(node.ran[0], {"n": 1.0}, number, 0.0))

    def is_whole() -> bool:
        with closing(sqlite3.connect(copied(bench, tmp_path / "copy"))) as copy:
            [(count,)] = copy.execute("SELECT COUNT(*) FROM events")
        with closing(sqlite3.connect(bench.home / "manta.db")) as store:
            [(there,)] = store.execute("SELECT COUNT(*) FROM events")
        return count == there > 3

    wait_until(is_whole)


@pytest.mark.parametrize("number", [1, 2])
def test_a_database_older_than_its_nodes_is_seen_and_its_swarms_go_on(
    bench, admin: Client, nodes, caplog, tmp_path: Path, number: int
) -> None:
    playing = nodes(number, silent)
    swarm = deploy(admin, one_task())
    wait_until(lambda: all(node.ran for node in playing))
    bench.restart()  # folds the log into the database
    copy = copied(bench, tmp_path)
    for node in playing:
        [at] = node.ran
        node.log(swarm, LogLine(at, 1.0, "stdout", "lost"))
        node.say(
            swarm, ResultWritten(at, "score", Inline(b"1")), MetricsLogged(at, {"n": 1.0}, 0, 0.0)
        )
    wait_until(lambda: all(node.acknowledged.get(swarm) == 3 for node in playing))
    bench.stop()
    put_back(bench, copy)
    bench.start()
    wait_until(lambda: all(len(node.ran) == 2 for node in playing))
    assert "the manager's database is older than what it told its nodes" in caplog.text
    assert "Was manta.db copied back" in caplog.text
    assert admin.ask(GetSwarm(swarm)).status == "ACTIVE"
    bench.restart()  # what it knows by now is not told again
    for node in playing:
        assert node.registered.wait(60)
        again = node.ran[-1]
        node.log(swarm, LogLine(again, 1.0, "stdout", "kept"))
        node.say(
            swarm, ResultWritten(again, "score", Inline(b"2")), TaskEnded(again, "FINISHED", 0.0)
        )
    assert admin.ask(WaitSwarm(swarm, 20.0), 30.0).status == "COMPLETED"
    results = admin.ask(ReadFeed(swarm, "results")).items
    assert [item.value for item in results if item.counts] == [Inline(b"2")] * number
    tasks = admin.ask(GetTasks(swarm)).tasks
    assert [task.status for task in tasks] == ["INTERRUPTED", "FINISHED"] * number
    assert "went back to an earlier state" in tasks[0].error.sentence
    wait_until(lambda: {"kept"} <= {i.line.text for i in admin.ask(ReadFeed(swarm, "logs")).items})


def test_a_database_that_lost_its_log_is_said(bench, admin: Client, nodes, caplog) -> None:
    [node] = nodes(1, silent)
    swarm = deploy(admin, one_task())
    wait_until(lambda: node.ran)
    bench.stop()
    bench.home.joinpath("manager.json").write_text("{}")  # as one that was killed leaves it
    node.script = work
    bench.start()
    assert "manta.db-wal is gone" in caplog.text
    assert "put it back" in caplog.text
    assert admin.ask(WaitSwarm(swarm, 20.0), 30.0).status == "COMPLETED"


@pytest.mark.parametrize("left", ["nothing", "an empty file", "a database without tables"])
def test_a_lost_database_is_no_first_start(bench, admin: Client, left: str) -> None:
    bench.stop()
    database = bench.home / "manta.db"
    database.unlink()
    if left == "an empty file":
        database.touch()
    elif left == "a database without tables":
        with closing(sqlite3.connect(database)) as raw:
            raw.execute("PRAGMA journal_mode = WAL")
            raw.execute("VACUUM")
    with pytest.raises(StartError, match=r"manta.db is gone or empty: .* restore a backup"):
        Manager(bench.settings)
    assert sorted(os.listdir(bench.home)) != []


def test_a_first_start_that_failed_can_be_tried_again(bench, tmp_path: Path, admin: Client) -> None:
    bench.stop()
    (tmp_path / "other").mkdir()
    other = type(bench)(tmp_path / "other" / "manager", bench.undo)
    taken = bench.settings.users
    bench.start()
    failing = other.settings.__class__(
        other.home, "tcp://127.0.0.1:0", taken, "tcp://127.0.0.1:0", bootstrap=None
    )
    with pytest.raises(StartError, match="cannot listen"):
        Manager(failing)
    other.start()
    assert other.manager.file.public_key


def test_swarms_that_are_newer_than_the_database_are_told(
    bench, admin: Client, nodes, caplog, tmp_path: Path
) -> None:
    playing = nodes(2, silent)
    known = deploy(admin, one_task())
    wait_until(lambda: all(node.ran for node in playing))
    bench.restart()
    copy = copied(bench, tmp_path)
    for node in playing:
        assert node.registered.wait(60)
    lost = [deploy(admin, one_task()) for _ in range(2)]
    wait_until(lambda: all(node.acknowledged.get(one) for node in playing for one in lost))
    bench.stop()
    put_back(bench, copy)
    caplog.clear()
    bench.start()
    told = "node-1, node-2 report 2 swarms that this manager does not know: its database is older"
    wait_until(lambda: told in admin.ask(GetSwarm(known)).reason)
    assert told in admin.ask(ExplainSwarm(known)).plan.notices[0]
    assert told in admin.ask(GetManagerStatus()).health["lab"]
    [said] = {one.getMessage() for one in caplog.records if "node-1 (" in one.getMessage()} & {
        one.getMessage() for one in caplog.records if "2 swarms that this" in one.getMessage()
    }
    assert "put a newer database back, or deploy them again" in said


def test_a_swarm_that_was_not_started_yet_in_an_older_database_can_be_started_again(
    bench, admin: Client, nodes, tmp_path: Path
) -> None:
    [node] = nodes(1, silent)
    swarm = admin.ask(SendSwarm("lab", one_task())).swarm_id
    bench.restart()
    copy = copied(bench, tmp_path)
    assert admin.ask(StartSwarm(swarm)).status == "ACTIVE"
    wait_until(lambda: node.acknowledged.get(swarm))
    bench.stop()
    put_back(bench, copy)
    bench.start()
    assert node.registered.wait(60)
    node.script = work
    assert admin.ask(StartSwarm(swarm)).status == "ACTIVE"
    assert admin.ask(WaitSwarm(swarm, 20.0), 30.0).status == "COMPLETED"


def test_an_attempt_that_ran_before_the_database_went_back_says_so(
    bench, admin: Client, nodes, tmp_path: Path
) -> None:
    [node] = nodes(1, silent)
    swarm = deploy(admin, one_task())
    wait_until(lambda: node.ran)
    bench.restart()
    copy = copied(bench, tmp_path)
    node.say(swarm, MetricsLogged(node.ran[0], {"n": 1.0}, 0, 0.0))
    wait_until(lambda: node.acknowledged.get(swarm) == 2)
    bench.stop()
    put_back(bench, copy)
    bench.start()
    wait_until(lambda: len(node.ran) == 2)
    [why] = [i.sentence for i in admin.ask(ReadFeed(swarm, "events")).items if i.kind == "retried"]
    assert "the manager's database went back to an earlier state (an older copy" in why


def test_what_was_restored_runs_again_once(bench, admin: Client, nodes, tmp_path: Path) -> None:
    """Neither what nodes had sent since, nor another start, has it run again."""
    [node] = nodes(1, silent)
    swarm = deploy(admin, one_task())
    wait_until(lambda: node.ran)
    bench.restart()
    assert node.registered.wait(60)
    copy, made_at = copied(bench, tmp_path), time.time()
    node.say(swarm, MetricsLogged(node.ran[0], {"n": 1.0}, 0, 0.0))
    wait_until(lambda: node.acknowledged.get(swarm) == 2)
    bench.stop()
    put_back(bench, copy)
    Home(bench.home).write_restored_file(RestoredFile("of yesterday", made_at))
    for _ in range(3):
        bench.start()
        assert node.registered.wait(60)
        wait_until(lambda: len(node.ran) > 1)
        bench.stop()
    bench.start()
    assert node.registered.wait(60)
    node.say(swarm, TaskEnded(node.ran[-1], "FINISHED", 0.0))
    assert admin.ask(WaitSwarm(swarm, 20.0), 30.0).status == "COMPLETED"
    tasks = admin.ask(GetTasks(swarm)).tasks
    assert [task.status for task in tasks] == ["INTERRUPTED", "FINISHED"]
