"""A record or a line that is damaged costs itself alone, and is told with what to do."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing

import pytest

from manta.manager.backup import verify_home
from manta.manager.home import Home
from manta.manager.store.records import ClusterRecord, Record
from manta.protocol.clusters import ListClusters, ListNodes
from manta.protocol.node import Instance, LogLine
from manta.protocol.user import GetSwarm, ListSwarms, ReadFeed
from manta.testing import wait_until
from manta.testing.manager import Client, finish
from tests.integration.manager.test_swarms import deploy, round_trip

KINDS = Record.__subclasses__()
BYTES = {"utf8": b'{"id": "\xff"}', "deep": b'{"id": ' + b"[" * 50_000, "cut": b"{", "none": b""}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.table)
def test_a_damaged_record_is_told_and_costs_itself_alone(
    bench, admin: Client, nodes, caplog, kind: type[Record]
) -> None:
    started = nodes(2, finish)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: admin.ask(GetSwarm(swarm)).status == "COMPLETED")
    bench.stop()
    before = len(verify_home(Home(bench.home)).flaws)
    assert before == 0
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        for name, content in BYTES.items():
            store.execute(f"INSERT INTO {kind.table} VALUES (?, ?)", (name, content))
    caplog.clear()
    bench.start()
    assert [info.name for info in admin.ask(ListClusters()).clusters] == ["lab"]
    assert len(admin.ask(ListNodes("lab")).nodes) == 4
    assert [info.swarm_id for info in admin.ask(ListSwarms()).swarms] == [swarm]
    wait_until(lambda: all(node.registrations >= 2 for node in started))
    again = deploy(admin, round_trip())
    wait_until(lambda: admin.ask(GetSwarm(again)).status == "COMPLETED")
    told = [record.getMessage() for record in caplog.records if "is damaged" in record.getMessage()]
    flaws = verify_home(Home(bench.home)).flaws
    for name in BYTES:
        sentence = f"The record {name} of the {kind.table} in "
        for sentences in (told, flaws):
            [one] = [said for said in sentences if said.startswith(sentence)]
            assert one.endswith(f": {kind.lost}; {kind.remedy}.")


def test_a_cluster_whose_record_is_lost_takes_no_other_along(bench, admin: Client) -> None:
    bench.stop()
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        store.execute(f"UPDATE {ClusterRecord.table} SET record = x'ff'")
    bench.start()
    assert admin.ask(ListClusters()).clusters == ()


def test_a_damaged_log_line_says_so_in_its_place(bench, admin: Client, nodes) -> None:
    [node] = nodes(1, finish)
    swarm = deploy(admin, round_trip())
    wait_until(lambda: admin.ask(GetSwarm(swarm)).status == "COMPLETED")
    at = Instance(swarm, "worker", 0, 0)
    node.log(swarm, *(LogLine(at, 1.0, "stdout", f"line {n}") for n in range(3)))
    wait_until(lambda: len(admin.ask(ReadFeed(swarm, "logs")).items) == 3)
    bench.stop()
    with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
        store.execute("UPDATE log_lines SET body = x'93ff' WHERE number = 2")
        store.execute("UPDATE log_lines SET node_id = CAST(x'ff' AS TEXT) WHERE number = 3")
    bench.start()
    texts = [item.line.text for item in admin.ask(ReadFeed(swarm, "logs")).items]
    assert (texts[0], texts[2]) == ("line 0", "line 2")
    assert "is damaged" in texts[1]
    assert "what it said is lost; restore a backup" in texts[1]


def test_any_byte_of_the_events_may_be_damaged(bench, admin: Client, nodes) -> None:
    """Whatever the byte is, the manager starts, and the other swarm is whole."""
    nodes(2, finish)
    victim, other = deploy(admin, round_trip()), deploy(admin, round_trip())
    wait_until(
        lambda: all(admin.ask(GetSwarm(one)).status == "COMPLETED" for one in (victim, other))
    )
    choice = random.Random(3)
    for _ in range(8):
        bench.stop()
        with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
            store.execute("DELETE FROM snapshots")
            rows = store.execute(
                "SELECT number, body FROM events WHERE swarm_id = ?", (victim,)
            ).fetchall()
            number, body = choice.choice(rows)
            damaged = bytearray(body)
            damaged[choice.randrange(len(body))] ^= 1 << choice.randrange(8)
            write = "UPDATE events SET body = ? WHERE swarm_id = ? AND number = ?"
            store.execute(write, (bytes(damaged), victim, number))
        bench.start()
        assert admin.ask(GetSwarm(other)).status == "COMPLETED"
        refusal = admin.refusal(GetSwarm(victim))
        assert f"event {number} is not what was stored" in refusal.sentence
        bench.stop()
        with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
            store.execute(write, (body, victim, number))
        bench.start()
