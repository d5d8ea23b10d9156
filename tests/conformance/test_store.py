"""One suite for every form of the manager's store."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manta.manager.errors import (
    DamagedLog,
    StorageUnavailable,
    StoreConflict,
    StoreError,
    StoreVersion,
)
from manta.manager.store.interface import (
    AppendEvents,
    AppendLogs,
    Delete,
    Put,
    PutPages,
    PutSnapshot,
    Reference,
    Release,
    RemoveSwarm,
    SkipLogs,
    Store,
    Write,
)
from manta.manager.store.migrations import MIGRATIONS
from manta.manager.store.records import (
    ClusterRecord,
    KeyKind,
    KeyRecord,
    ModuleRecord,
    NodeRecord,
    QuotaRecord,
    Record,
    RemovedSwarmRecord,
    SwarmRecord,
    TokenRecord,
    UserRecord,
    key_of,
)
from manta.manager.store.sqlite import SqliteStore
from manta.protocol.node import Capabilities, DatasetInfo
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import SwarmInfo
from manta.protocol.values import BlobRef
from manta.testing.stores.faulty import Crash, FaultyStore
from manta.testing.stores.memory import MemoryStore
from manta.transports.codec.stored import Damaged

CLUSTER = ClusterRecord("c1", "lab", "u1", 1.5)
RECORDS: list[Record] = [
    CLUSTER,
    NodeRecord("n1", "c1", "é-1", "k" * 40, 2.0, Capabilities(datasets=(DatasetInfo("d", 3, ""),))),
    UserRecord("u1", "admin@localhost", "$argon2id$x", 1.0),
    KeyRecord("k" * 40, KeyKind.NODE, "n1", 3.0),
    TokenRecord("ab" * 32, "manta:node", "c1", 4.0, uses=3),
    SwarmRecord(SwarmInfo("s1", "fl", "c1", "PENDING"), "u1"),
    QuotaRecord("user", "u1", {"clusters": 3}),
    RemovedSwarmRecord("s0", "c1", 5.0),
    ModuleRecord(
        "m1",
        ModuleSpec("worker", BlobRef("ab" * 32, 9), "py:3", "1.0.0", ("d",), ("numpy",)),
        "u1",
        1.0,
        2.0,
    ),
]


@pytest.fixture(params=["memory", "faulty", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Opens the store, and after a close opens the same one again."""
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "manta.db")
    memory = MemoryStore()
    return lambda: memory if request.param == "memory" else FaultyStore(memory)


@pytest.fixture
def store(make: Callable[[], Store]) -> Iterator[Store]:
    with closing(make()) as store:
        yield store


def log_of(store: Store, swarm_id: str, after: int = 0) -> list[tuple[int, bytes]]:
    return [(number, body) for number, body in store.events(swarm_id, after)]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_are_put_replaced_and_deleted(store: Store, record: Record) -> None:
    kind, key = type(record), key_of(record)
    assert store.get(kind, key) is None
    store.commit([Put(record), Put(record)])
    assert store.get(kind, key) == record
    assert store.all(kind) == [record]
    store.commit([Delete(kind, key), Delete(kind, key)])
    assert store.all(kind) == []


def test_lines_that_are_skipped_count_as_appended_and_are_not_kept(store: Store) -> None:
    store.commit([AppendLogs("s1", "n1", 1, (b"a", b"b")), SkipLogs("s1", "n1", 9)])
    store.commit([SkipLogs("s1", "n2", 4), SkipLogs("s1", "n1", 12)])
    assert store.log_ends("s1") == {"n1": 12, "n2": 4}
    store.commit([AppendLogs("s1", "n2", 5, (b"c",))])
    assert store.log_ends("s1") == {"n1": 12, "n2": 5}
    assert [line.body for line in store.logs("s1")] == [b"a", b"b", b"c"]
    store.commit([RemoveSwarm("s1")])
    while store.purge():
        pass
    assert store.log_ends("s1") == {}


def test_what_a_swarm_takes_is_told(store: Store) -> None:
    assert store.extent("s1") == (0, 0, 0)
    assert store.extents() == {}
    store.commit([AppendEvents("s1", 1, (b"ab", b"c")), AppendLogs("s1", "n", 1, (b"line",))])
    store.commit([AppendEvents("s2", 1, (b"other",))])
    store.commit([AppendEvents("s1", 2, (b"c", b"d")), AppendLogs("s1", "n", 1, (b"line", b"x"))])
    store.commit([AppendLogs("s1", "m", 1, (b"line",))])
    assert store.extent("s1") == (4, 3, 9)
    assert store.extents() == {"s1": (4, 3, 9), "s2": (5, 0, 0)}
    store.commit([RemoveSwarm("s1")])
    assert store.extents() == {"s2": (5, 0, 0)}


def test_all_references_are_read(store: Store) -> None:
    assert list(store.references()) == []
    digests = [f"{number:064x}" for number in range(2500)]
    store.commit([Reference("s1", tuple(digests)), Reference("m1", tuple(digests[:3]))])
    store.commit([Release("s1", (digests[0],))])
    wanted = {("s1", digest) for digest in digests[1:]} | {("m1", one) for one in digests[:3]}
    assert sorted(store.references()) == sorted(wanted)


def test_records_come_by_key_and_the_last_one_wins(store: Store) -> None:
    second = ClusterRecord("c0", "home", "u1", 1.0)
    renamed = ClusterRecord("c1", "other", "u1", 1.5)
    store.commit([Put(CLUSTER), Put(second)])
    store.commit([Put(renamed)])
    assert store.all(ClusterRecord) == [second, renamed]


def test_events_are_a_log_that_can_be_sent_again(store: Store) -> None:
    store.commit([AppendEvents("s1", 1, (b"a", b"b")), AppendEvents("s2", 1, (b"x",))])
    store.commit([AppendEvents("s1", 2, (b"b", b"c"))])
    store.commit([AppendEvents("s1", 1, (b"a",))])
    assert log_of(store, "s1") == [(1, b"a"), (2, b"b"), (3, b"c")]
    assert log_of(store, "s1", after=2) == [(3, b"c")]
    assert log_of(store, "s2") == [(1, b"x")]
    assert log_of(store, "s3") == []


@pytest.mark.parametrize(
    "wrong",
    [
        AppendEvents("s1", 5, (b"e",)),
        AppendEvents("s1", 2, (b"other",)),
        AppendEvents("s2", 2, (b"",)),
    ],
    ids=["gap", "other-content", "gap-in-a-new-log"],
)
def test_an_event_that_does_not_continue_its_log_takes_its_whole_commit_down(
    store: Store, wrong: Write
) -> None:
    store.commit([AppendEvents("s1", 1, (b"a", b"b"))])
    with pytest.raises(StoreConflict, match="does not continue"):
        store.commit([Put(CLUSTER), AppendEvents("s1", 3, (b"c",)), wrong])
    assert log_of(store, "s1") == [(1, b"a"), (2, b"b")]
    assert store.all(ClusterRecord) == []
    store.commit([AppendEvents("s1", 3, (b"c",))])
    assert len(log_of(store, "s1")) == 3


def test_a_long_log_is_read_whole(store: Store) -> None:
    bodies = tuple(str(number).encode() for number in range(1, 1301))
    store.commit([AppendEvents("s1", 1, bodies)])
    assert log_of(store, "s1", after=100) == [*enumerate(bodies[100:], 101)]


def test_lines_are_kept_once_and_read_by_cursor(store: Store) -> None:
    store.commit([AppendLogs("s1", "n1", 1, (b"a1", b"a2"))])
    store.commit([AppendLogs("s1", "n2", 1, (b"b1",)), AppendLogs("s2", "n1", 1, (b"x",))])
    store.commit([AppendLogs("s1", "n1", 2, (b"a2", b"a3"))])
    lines = store.logs("s1")
    assert [(line.node_id, line.body) for line in lines] == [
        ("n1", b"a1"),
        ("n1", b"a2"),
        ("n2", b"b1"),
        ("n1", b"a3"),
    ]
    assert [line.position for line in lines] == sorted({line.position for line in lines})
    assert store.logs("s1", lines[1].position, 1) == [lines[2]]
    assert store.logs("s1", lines[-1].position) == []
    assert store.log_ends("s1") == {"n1": 3, "n2": 1}
    assert store.log_ends("s3") == {}


def test_a_removed_swarm_leaves_nothing(store: Store) -> None:
    for swarm_id in ("s1", "s2"):
        store.commit(
            [
                Put(SwarmRecord(SwarmInfo(swarm_id, "fl", "c1", "ACTIVE"), "u1")),
                AppendEvents(swarm_id, 1, tuple(b"%d" % number for number in range(30))),
                AppendLogs(swarm_id, "n1", 1, tuple(b"%d" % number for number in range(30))),
                Reference(swarm_id, ("d1", f"only-{swarm_id}")),
            ]
        )
    assert store.unreferenced(["d1", "only-s1", "only-s2", "d9"]) == {"d9"}
    store.commit([RemoveSwarm("s1"), RemoveSwarm("s1")])
    for _ in range(100):
        if not store.purge(limit=20):
            break
    else:
        pytest.fail("purge never ends")
    assert [record.info.swarm_id for record in store.all(SwarmRecord)] == ["s2"]
    assert store.unreferenced(["d1", "only-s1", "only-s2"]) == {"only-s1"}
    assert log_of(store, "s1") == []
    assert store.logs("s1") == []
    assert store.log_ends("s1") == {}
    assert len(log_of(store, "s2")) == len(store.logs("s2")) == 30


def test_a_blob_that_is_released_is_needed_by_nobody_else_s_leave(store: Store) -> None:
    store.commit([Reference("s1", ("d1", "d2")), Reference("s2", ("d1",))])
    store.commit([Release("s1", ("d1", "d2", "never-there"))])
    assert store.unreferenced(["d1", "d2"]) == {"d2"}
    store.commit([Release("s2", ("d1",)), Reference("s1", ("d2",))])
    assert store.unreferenced(["d1", "d2"]) == {"d1"}


def test_a_blob_is_named_by_holders_and_within_scopes(store: Store) -> None:
    store.commit(
        [
            Reference("s1", ("d1", "d2"), "c1"),
            Reference("s2", ("d2",), "c2"),
            Reference("module", ("d3",)),
        ]
    )
    every = ["d1", "d2", "d3", "d4"]
    assert store.named(every, scopes=["c1"]) == {"d1", "d2"}
    assert store.named(every, scopes=["c2", "c3", ""]) == {"d2"}
    assert store.named(every, holders=["module"]) == {"d3"}
    assert store.named(every, holders=["s2", "none"], scopes=["c3"]) == {"d2"}
    assert store.named(every) == set()
    assert store.named([], scopes=["c1"]) == set()
    many = [f"c{number}" for number in range(3000)]
    assert store.named([*every, *map(str, range(1000))], scopes=many) == {"d1", "d2"}
    store.commit([Release("s1", ("d1",)), Reference("s1", ("d2",), "other")])
    assert store.named(every, scopes=["c1", "other"]) == {"d2"}
    store.commit([RemoveSwarm("s1"), RemoveSwarm("s2")])
    assert store.named(every, scopes=["c1", "c2"]) == set()


def test_a_blob_is_needed_by_whoever_holds_it_swarm_or_module(store: Store) -> None:
    store.commit([Reference("s1", ("d1",)), Reference("m1", ("d1", "d2"))])
    store.commit([RemoveSwarm("s1")])
    assert store.unreferenced(["d1", "d2"]) == set()
    store.commit([Release("m1", ("d1", "d2"))])
    assert store.unreferenced(["d1", "d2"]) == {"d1", "d2"}


def test_many_digests_are_looked_up(store: Store) -> None:
    digests = [str(number) for number in range(1700)]
    store.commit([Reference("s1", tuple(digests[:1600]))])
    assert store.unreferenced(digests) == set(digests[1600:])


def test_what_was_committed_is_there_after_a_restart(make: Callable[[], Store]) -> None:
    with closing(make()) as store:
        store.commit([Put(record) for record in RECORDS])
        store.commit([AppendEvents("s1", 1, (b"a",)), AppendLogs("s1", "n1", 1, (b"l",))])
    with closing(make()) as store:
        for record in RECORDS:
            assert store.get(type(record), key_of(record)) == record
        assert log_of(store, "s1") == [(1, b"a")]
        assert store.log_ends("s1") == {"n1": 1}


def test_readers_see_whole_commits_while_others_write(store: Store) -> None:
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        while not done.is_set():
            for _, body in store.events("s1"):
                if body == b"even":
                    break
            else:
                continue
            numbers = [number for number, _ in store.events("s1")]
            if numbers != list(range(1, len(numbers) + 1)) or len(numbers) % 2:
                torn.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 101, 2):
        store.commit(
            [AppendEvents("s1", number, (b"odd",)), AppendEvents("s1", number + 1, (b"even",))]
        )
    done.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_housekeeping_changes_nothing(store: Store) -> None:
    done = threading.Event()

    def tidy() -> None:
        while not done.is_set():
            store.tidy()

    thread = threading.Thread(target=tidy)
    thread.start()
    for number in range(1, 101):
        store.commit([AppendEvents("s1", number, (bytes(10_000),))])
    done.set()
    thread.join()
    assert [number for number, _ in log_of(store, "s1")] == [*range(1, 101)]


# Any sequence of writes leaves a form as it leaves the simplest one.

swarm_ids = st.sampled_from(["s1", "s2"])
bodies = st.lists(st.sampled_from([b"a", b"b"]), max_size=3).map(tuple)
writes = st.one_of(
    st.builds(
        Put, st.builds(ClusterRecord, swarm_ids, st.text(max_size=3), st.just("u"), st.just(1.0))
    ),
    st.builds(Delete, st.just(ClusterRecord), swarm_ids),
    st.builds(AppendEvents, swarm_ids, st.integers(1, 4), bodies),
    st.builds(AppendLogs, swarm_ids, st.sampled_from(["n1", "n2"]), st.integers(1, 4), bodies),
    st.builds(Reference, swarm_ids, st.lists(st.sampled_from(["d1", "d2"])).map(tuple)),
    st.builds(Release, swarm_ids, st.lists(st.sampled_from(["d1", "d2"])).map(tuple)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(commits=st.lists(st.lists(writes, max_size=4), max_size=6))
def test_sqlite_does_as_memory_does(tmp_path: Path, commits: list[list[Write]]) -> None:
    for left in tmp_path.glob("model.db*"):
        left.unlink()
    model = MemoryStore()
    with closing(SqliteStore(tmp_path / "model.db")) as store:
        for commit in commits:
            outcomes = []
            for form in (model, store):
                try:
                    form.commit(commit)
                    outcomes.append(True)
                except StoreConflict:
                    outcomes.append(False)
            assert outcomes[0] == outcomes[1]
        assert store.all(ClusterRecord) == model.all(ClusterRecord)
        for swarm_id in ("s1", "s2"):
            assert log_of(store, swarm_id) == log_of(model, swarm_id)
            assert store.log_ends(swarm_id) == model.log_ends(swarm_id)
            found = [[line[1:] for line in form.logs(swarm_id)] for form in (store, model)]
            assert found[0] == found[1]
        assert store.unreferenced(["d1", "d2"]) == model.unreferenced(["d1", "d2"])


# Faults.


def test_a_full_disk_refuses_and_resumes(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        store._writer.execute("PRAGMA max_page_count = 60")
        big = AppendEvents("s1", 1, (bytes(1 << 20),))
        with pytest.raises(
            StorageUnavailable, match=r"manta\.db was not written: the disk is full"
        ):
            store.commit([Put(CLUSTER), big])
        assert store.all(ClusterRecord) == []
        store._writer.execute("PRAGMA max_page_count = 100000")
        store.commit([Put(CLUSTER), big])
        assert log_of(store, "s1") == [(1, bytes(1 << 20))]


def test_a_read_only_database_refuses_and_resumes(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        store._writer.execute("PRAGMA query_only = ON")
        with pytest.raises(StorageUnavailable, match="read-only"):
            store.commit([Put(CLUSTER)])
        store._writer.execute("PRAGMA query_only = OFF")
        store.commit([Put(CLUSTER)])


@pytest.mark.parametrize("fault", ["full", "crash_before_commit", "crash_after_commit"])
def test_the_faulty_form_fails_as_told_and_recovers(fault: str) -> None:
    store = FaultyStore(MemoryStore())
    setattr(store.faults, fault, True)
    with pytest.raises((StorageUnavailable, Crash)):
        store.commit([AppendEvents("s1", 1, (b"a",))])
    assert len(log_of(store, "s1")) == (fault == "crash_after_commit")
    store.faults.full = False
    store.commit([AppendEvents("s1", 1, (b"a", b"b"))])
    assert log_of(store, "s1") == [(1, b"a"), (2, b"b")]


# What is SQLite's own.


def test_nobody_else_may_read_the_database(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        store.commit([Put(CLUSTER)])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_every_commit_is_synced(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        assert store._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._writer.execute("PRAGMA synchronous").fetchone() == (2,)


def test_its_connections_keep_few_pages_in_memory(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        for connection in (store._writer, store._reader):
            assert connection.execute("PRAGMA cache_size").fetchone() == (-1000,)


def test_a_database_of_an_earlier_version_keeps_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, at REAL)")
        for version, statements in enumerate(MIGRATIONS[:2], 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, 0)", (version,))
        connection.execute("INSERT INTO blob_references VALUES ('d1', 's1')")
    with closing(SqliteStore(path)) as store:
        assert store.unreferenced(["d1", "d2"]) == {"d2"}
        store.commit([Put(record) for record in RECORDS])
        store.commit([Release("s1", ("d1",))])
        assert store.unreferenced(["d1"]) == {"d1"}


def test_blobs_of_an_earlier_version_are_of_the_clusters_of_their_swarms(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    swarm = SwarmRecord(SwarmInfo("s1", "one", "c1", "ACTIVE"), "u1")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE migrations (version INTEGER PRIMARY KEY, at REAL)")
        for version, statements in enumerate(MIGRATIONS[:4], 1):
            for statement in statements:
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, 0)", (version,))
        record = msgspec.json.encode(swarm).decode()
        connection.execute("INSERT INTO swarms VALUES ('s1', ?), ('s2', '{damaged')", (record,))
        held = [("d1", "s1"), ("d2", "s2"), ("d3", "module")]
        connection.executemany("INSERT INTO blob_references VALUES (?, ?)", held)
    with closing(SqliteStore(path)) as store:
        digests = ["d1", "d2", "d3"]
        assert store.named(digests, scopes=["c1", "c2", ""]) == {"d1"}
        assert store.named(digests, holders=["s1", "s2", "module"]) == set(digests)
        assert store.unreferenced(digests) == set()


def test_a_database_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO migrations VALUES (?, 0)", (len(MIGRATIONS) + 1,))
    with pytest.raises(StoreVersion, match="later version of Manta"):
        SqliteStore(path)


def test_what_is_no_database_is_refused_with_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"manta\.db: file is not a database"):
        SqliteStore(path)
    with pytest.raises(StorageUnavailable, match="cannot be opened"):
        SqliteStore(tmp_path / "missing" / "manta.db")


def test_a_snapshot_is_of_the_last_event_and_keeps_the_pages_that_are_not_replaced(
    make: Callable[[], Store],
) -> None:
    with closing(make()) as store:
        assert store.snapshot("s1") is None
        store.commit([AppendEvents("s1", 1, (b"a", b"b")), PutSnapshot("s1", 1, b"early")])
        assert store.snapshot("s1") is None
        store.commit([PutSnapshot("s1", 2, b"two", {"p0": b"0", "p1": b"1"})])
        store.commit([AppendEvents("s1", 3, (b"c",)), PutSnapshot("s1", 3, b"3", {"p1": b"x"})])
        assert store.snapshot("s1") == (3, b"3", frozenset({"p0", "p1"}))
        assert [store.page("s1", name) for name in ("p0", "p1")] == [b"0", b"x"]
        store.commit([PutSnapshot("s1", 2, b"late", {"p0": b"z"})])
        assert store.snapshot("s1") is None, "it does not fit the pages"
        assert store.page("s1", "p0") == b"z"
        store.commit([PutSnapshot("s1", 3, b"333")])
        store.commit([PutPages("s1", {"p0": b"y", "p2": b"2"})])
        assert store.snapshot("s1") is None, "it does not fit the pages"
        store.commit([PutSnapshot("s1", 3, b"333")])
    with closing(make()) as store:
        assert store.snapshot("s1") == (3, b"333", frozenset({"p0", "p1", "p2"}))
        assert [store.page("s1", f"p{at}") for at in range(3)] == [b"y", b"x", b"2"]
        assert store.snapshot_size("s1") == 3
        for swarm, page in (("s1", "p3"), ("s2", "p0")):
            with pytest.raises(Damaged, match=f"its page {page} is missing or another"):
                store.page(swarm, page)
        assert log_of(store, "s1", after=3) == []
        store.commit([RemoveSwarm("s1")])
        assert store.snapshot("s1") is None


def test_records_are_counted(store: Store) -> None:
    store.commit([Put(CLUSTER)])
    assert (store.count(ClusterRecord), store.count(UserRecord)) == (1, 0)


def _appended(path: Path) -> None:
    with closing(SqliteStore(path)) as store:
        store.commit([AppendEvents("s1", 1, (b"one", b"two")), AppendEvents("s2", 1, (b"x",))])
        store.commit([AppendEvents("s1", 3, (b"three",)), PutSnapshot("s1", 3, b"s", {"p": b"p"})])


@pytest.mark.parametrize("statement", ["body = x'00'", "body = CAST('tXo' AS BLOB)"])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_changed_event_is_seen(tmp_path: Path, statement: str, number: int) -> None:
    path = tmp_path / "manta.db"
    _appended(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(f"UPDATE events SET {statement} WHERE swarm_id = 's1' AND number = {number}")
    with closing(SqliteStore(path)) as store:
        with pytest.raises(DamagedLog, match=f"event {number} is not what was stored"):
            log_of(store, "s1")
        assert log_of(store, "s2") == [(1, b"x")]
        store.commit([AppendEvents("s2", 2, (b"y",))])


def test_a_log_that_was_set_back_is_seen_and_its_snapshot_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    _appended(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("DELETE FROM events WHERE swarm_id = 's1' AND number = 3")
    with closing(SqliteStore(path)) as store:
        with pytest.raises(DamagedLog, match="ends with event 2, and 3 were stored"):
            log_of(store, "s1")
        assert store.snapshot("s1") is None


def test_what_is_too_large_for_the_database_is_the_fault_of_its_writer_alone(
    tmp_path: Path,
) -> None:
    with closing(SqliteStore(tmp_path / "manta.db")) as store:
        store._writer.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 10_000)  # a billion bytes at most
        store.commit([AppendEvents("s1", 1, (b"a",))])
        with pytest.raises(StoreConflict, match="so large"):
            store.commit([PutSnapshot("s1", 1, bytes(20_000))])
        store.commit([AppendEvents("s1", 2, (b"b",)), PutSnapshot("s1", 2, b"small")])


@pytest.mark.parametrize("table", ["snapshots", "snapshot_pages"])
def test_a_damaged_snapshot_is_not_used(tmp_path: Path, table: str) -> None:
    path = tmp_path / "manta.db"
    _appended(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute(f"UPDATE {table} SET body = x'ff'")
    with closing(SqliteStore(path)) as store:
        assert store.snapshot("s1") is None
        assert len(log_of(store, "s1")) == 3


def test_events_of_a_version_without_checksums_are_continued_with_them(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    _appended(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE events SET checksum = NULL")
        raw.execute("DELETE FROM event_ends")
    with closing(SqliteStore(path)) as store:
        store.commit([AppendEvents("s1", 4, (b"four",))])
        assert len(log_of(store, "s1")) == 4
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE events SET body = x'00' WHERE number = 4")
    with closing(SqliteStore(path)) as store, pytest.raises(DamagedLog, match="event 4"):
        log_of(store, "s1")


def test_what_cannot_be_stored_of_one_swarm_is_refused_alone(tmp_path: Path) -> None:
    path = tmp_path / "manta.db"
    _appended(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        raw.execute("UPDATE event_ends SET number = 2 WHERE swarm_id = 's1'")
    with closing(SqliteStore(path)) as store:
        with pytest.raises(StoreError):
            store.commit([AppendEvents("s1", 3, (b"other",))])
        store.commit([AppendEvents("s2", 2, (b"y",))])
