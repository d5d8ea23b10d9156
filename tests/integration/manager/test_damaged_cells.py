"""Any cell of the database may hold any bytes: that costs the thing it is part of, alone."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace as with_

from manta.actors import Refused
from manta.manager.backup import verify_home
from manta.manager.home import Home
from manta.manager.service import Manager, Settings
from manta.manager.swarm import snapshot_writer
from manta.protocol.clusters import CreateCluster, CreateNodeToken, ListNodes
from manta.protocol.node import Instance, LogLine
from manta.protocol.quotas import SetQuota
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import (
    ExplainSwarm,
    GetSwarm,
    GetTasks,
    ListSwarms,
    ReadFeed,
    RemoveSwarm,
    SendSwarm,
    StopSwarm,
)
from manta.protocol.users import AddUser, CreateRoleDefinition, GrantRole, ListUsers, SendModule
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from tests.integration.manager.conftest import Bench
from tests.integration.manager.test_swarms import deploy, ended, read, round_trip, silent, work

TABLES = {
    **dict.fromkeys(
        (
            *("clusters", "nodes", "users", "keys", "tokens", "swarms"),
            *("grants", "roles", "modules", "quotas", "removals"),
        ),
        ("key", "record"),
    ),
    "events": ("swarm_id", "number", "body", "checksum"),
    "event_ends": ("swarm_id", "number", "checksum"),
    "snapshots": ("swarm_id", "number", "body", "checksum"),
    "snapshot_pages": ("swarm_id", "name", "body", "checksum"),
    "log_lines": ("position", "swarm_id", "node_id", "number", "body"),
    "blob_references": ("digest", "holder", "scope"),
    "removed_swarms": ("swarm_id",),
    "skipped_lines": ("swarm_id", "node_id", "number"),
    "extents": ("swarm_id", "event_bytes", "lines", "line_bytes"),
}
Row = tuple[Any, ...]


class Stored(NamedTuple):
    settings: Settings
    """With any ports."""
    bench: Bench
    unharmed: str
    """A swarm that is over."""
    others: tuple[str, ...]
    rows: dict[str, list[Row]]
    """By table: those that may be damaged, which are none of what the unharmed things need."""


def rows_of(database: Path) -> dict[str, set[Row]]:
    with closing(sqlite3.connect(database)) as store:
        tables = store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert {table for (table,) in tables} == {*TABLES, "migrations"}
        return {
            table: set(store.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall())
            for table, columns in TABLES.items()
        }


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    with ExitStack() as undo, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot_writer, "FINAL_DUE", 1)
        patch.setattr(snapshot_writer, "DUE", 1)
        bench = Bench(tmp_path_factory.mktemp("damaged") / "manager", undo)
        settings = replace(bench.settings, bootstrap=None)
        bench.start()
        admin, node = bench.client(bench.admin_keys), bench.node(1, work)
        assert node.registered.wait(60)

        def say(swarm: str, *texts: str) -> None:
            at = Instance(swarm, "worker", 0, 0)
            node.log(swarm, *(LogLine(at, 1.0, "stdout", text) for text in texts))
            wait_until(lambda: len(admin.ask(ReadFeed(swarm, "logs")).items) == len(texts))

        unharmed = deploy(admin, round_trip())
        assert ended(admin, unharmed).status == "COMPLETED"
        say(unharmed, "one", "two")
        bench.stop()
        before = rows_of(bench.home / "manta.db")
        bench.start()
        over = deploy(admin, with_(round_trip(300), name="over"))
        assert ended(admin, over, 30).status == "COMPLETED"
        say(over, "of one that is over")
        node.script = silent
        runs = deploy(admin, with_(round_trip(), name="runs"))
        wait_until(lambda: admin.ask(GetTasks(runs)).tasks)
        say(runs, "of one that runs")
        waits = admin.ask(SendSwarm("lab", with_(round_trip(), name="waits"))).swarm_id
        admin.ask(AddUser("other@localhost", "a password"))
        admin.ask(CreateRoleDefinition("looker", ("swarm.read",)))
        admin.ask(CreateCluster("other"))
        admin.ask(GrantRole("other@localhost", "other", "looker"))
        admin.ask(CreateNodeToken("lab", uses=2))
        admin.ask(SendModule(ModuleSpec("seen", image="none")))
        admin.ask(SetQuota("clusters", 99, role="viewer"))
        bench.stop()
        with closing(sqlite3.connect(bench.home / "manta.db", isolation_level=None)) as store:
            store.execute("INSERT INTO blob_references VALUES (?, ?, '')", ("ab" * 32, runs))
            store.execute("INSERT INTO removed_swarms VALUES (?)", ("removed",))
            removal = '{"id": "removed", "cluster_id": "other", "at": 1.0}'
            store.execute("INSERT INTO removals VALUES (?, ?)", ("removed", removal))
            store.execute("INSERT INTO skipped_lines VALUES (?, ?, ?)", (over, node.node_id, 1))
            spare = ("node-2", "node-3", "node-4")
            ids = [
                key
                for (key,) in store.execute(
                    "SELECT key FROM nodes WHERE json_extract(record, '$.alias') IN (?, ?, ?)",
                    spare,
                )
            ]
            before["nodes"] = {row for row in before["nodes"] if row[0] not in ids}
        found = rows_of(bench.home / "manta.db")
        rows = {table: sorted(found[table] - before[table], key=repr) for table in TABLES}
        rows["keys"] = [row for row in found["keys"] if row[0] == bench.node_keys[3].public]
        undo.pop_all().close()  # also the node, which would send again what it said
        yield Stored(settings, bench, unharmed, (over, runs, waits), rows)


def damages(value: Any, choice: random.Random) -> dict[str, Any]:
    """By name: what a cell may hold instead of its value."""
    found = {
        "bytes": choice.randbytes(choice.randrange(1, 40)),
        "no text": b"\xff" + choice.randbytes(8),
        "a number": choice.randrange(-(2**62), 2**62),
        "nothing": b"",
    }
    if isinstance(value, str | bytes) and value:
        flipped = bytearray(value.encode() if isinstance(value, str) else value)
        flipped[choice.randrange(len(flipped))] ^= 1 << choice.randrange(8)
        found["a flipped bit"] = bytes(flipped)
    return found


@pytest.mark.parametrize("table", TABLES)
def test_whatever_a_cell_holds_costs_what_it_is_part_of_alone(
    stored: Stored, table: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choice = random.Random(table)
    assert stored.rows[table]
    for column in TABLES[table]:
        for damage in ("bytes", "no text", "a number", "nothing", "a flipped bit"):
            row = choice.choice(stored.rows[table])
            cells = dict(zip(TABLES[table], row, strict=True))
            if (content := damages(cells[column], choice).get(damage)) is None:
                continue
            home = tmp_path / f"{column}-{damage.replace(' ', '-')}"
            shutil.copytree(stored.settings.home, home)
            where = " AND ".join(f"{name} IS ?" for name in cells)
            kept = "TEXT" if isinstance(cells[column], str) and isinstance(content, bytes) else ""
            value = f"CAST(? AS {kept})" if kept else "?"
            with closing(sqlite3.connect(home / "manta.db", isolation_level=None)) as store:
                try:
                    store.execute(
                        f"UPDATE {table} SET {column} = {value} WHERE {where}", (content, *row)
                    )
                except sqlite3.IntegrityError:
                    continue  # SQLite allows no such cell
            caplog.clear()
            try:
                check(stored, home, table)
                said = [one.getMessage() for one in caplog.records if "ChildExited" in one.msg]
                assert len(said) <= (table in ("swarms", "events", "event_ends")), said
            except BaseException as error:
                error.add_note(f"{table}.{column} = {content!r} ({damage}) of {str(row)[:200]}")
                raise


def check(stored: Stored, home: Path, table: str) -> None:
    with ExitStack() as undo:
        manager = Manager(replace(stored.settings, home=home))
        undo.callback(manager.stop)
        file = manager.file
        admin = undo.enter_context(
            Client(file.users, file.public_key, keys=stored.bench.admin_keys)
        )
        node = undo.enter_context(
            FakeNode(
                file.nodes, file.public_key, keys=stored.bench.node_keys[0], alias="node-1",
                script=work,
            )
        )  # fmt: skip
        assert node.registered.wait(60)
        assert admin.ask(GetSwarm(stored.unharmed)).status == "COMPLETED"
        assert len(read(admin, stored.unharmed, "results")) == 2
        texts = [item.line.text for item in read(admin, stored.unharmed, "logs")]
        assert texts == ["one", "two"]
        if table not in ("swarms", "events", "event_ends"):
            states = [admin.ask(GetSwarm(swarm)).status for swarm in stored.others]
            assert "FAILED" not in states
        for swarm in stored.others:
            for message in (
                *[GetSwarm(swarm)] * 12,
                GetTasks(swarm),
                ExplainSwarm(swarm),
                ReadFeed(swarm, "logs"),
                ReadFeed(swarm, "events"),
                StopSwarm(swarm),
                RemoveSwarm(swarm),
            ):
                with suppress(Refused):  # at once: it asks again while anything is unavailable
                    admin.ask(message, 20.0)
        assert stored.unharmed in {info.swarm_id for info in admin.ask(ListSwarms()).swarms}
        assert "node-1" in {info.alias for info in admin.ask(ListNodes("lab")).nodes}
        assert "me@localhost" in {info.email for info in admin.ask(ListUsers()).users}
        again = deploy(admin, round_trip(method="any", maximum=1))
        assert ended(admin, again).status == "COMPLETED"
    verify_home(Home(home))  # it can be verified
