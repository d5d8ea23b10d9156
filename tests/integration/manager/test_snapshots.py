"""A manager that starts again replays a swarm's events from its last snapshot on."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from manta.manager.swarm import snapshot_writer
from manta.protocol.node import Assignment, JournalEntry, TaskEnded
from manta.protocol.user import FeedName, GetTasks, ReadFeed, WaitSwarm
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.integration.manager.test_swarms import deploy, read, round_trip, silent, work

FEEDS: tuple[FeedName, ...] = ("results", "metrics", "events")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_writer, "DUE", 50)
    monkeypatch.setattr(snapshot_writer, "FINAL_DUE", 5)


def until_12(assignment: Assignment) -> list[JournalEntry]:
    return work(assignment) if assignment.instance.iteration < 12 else silent(assignment)


def damage(bench, swarm_id: str) -> None:
    """So that whoever replays all events cannot go on."""
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        store.execute(
            "UPDATE events SET body = x'c1' WHERE swarm_id = ? AND number = 1", (swarm_id,)
        )


def test_a_swarm_that_runs_goes_on_from_its_snapshot(bench, admin: Client, nodes) -> None:
    [node] = nodes(1, until_12)
    swarm_id = deploy(admin, round_trip(20))
    wait_until(lambda: node.ran and node.ran[-1].iteration == 12)
    shown = {feed: admin.ask(ReadFeed(swarm_id, feed)).items for feed in FEEDS}
    tasks = admin.ask(GetTasks(swarm_id)).tasks
    bench.stop()
    damage(bench, swarm_id)
    node.script = work
    bench.start()
    for feed in FEEDS:
        assert admin.ask(ReadFeed(swarm_id, feed)).items[: len(shown[feed])] == shown[feed]
    assert admin.ask(GetTasks(swarm_id)).tasks[: len(tasks) - 1] == tasks[:-1]
    node.say(swarm_id, TaskEnded(node.ran[-1], "FINISHED", 0.0))
    assert admin.ask(WaitSwarm(swarm_id, 10.0)).status == "COMPLETED"
    assert len(read(admin, swarm_id, "results")) == 39  # one wrote none


def test_a_swarm_that_is_over_is_read_from_its_snapshot(bench, admin: Client, nodes) -> None:
    nodes(1)
    swarm_id = deploy(admin, round_trip(10))
    assert admin.ask(WaitSwarm(swarm_id, 10.0)).status == "COMPLETED"
    tasks = admin.ask(GetTasks(swarm_id))
    bench.stop()
    damage(bench, swarm_id)
    bench.start()
    assert admin.ask(GetTasks(swarm_id)) == tasks


def test_a_damaged_snapshot_costs_nothing_but_time(bench, admin: Client, nodes, caplog) -> None:
    nodes(1)
    swarm_id = deploy(admin, round_trip(10))
    assert admin.ask(WaitSwarm(swarm_id, 10.0)).status == "COMPLETED"
    tasks = admin.ask(GetTasks(swarm_id))
    bench.stop()
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        assert store.execute("UPDATE snapshots SET body = x'c1'").rowcount == 1
    bench.start()
    assert admin.ask(GetTasks(swarm_id)) == tasks
    assert f"The snapshot of swarm {swarm_id} in " in caplog.text
