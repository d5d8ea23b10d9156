"""A beginning that several ids share, of everything that has an id, by SDK and command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.apis import errors
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.user_api import UserAPI
from manta.console.exit_codes import Exit
from manta.manager.store.interface import AppendEvents, Put
from manta.manager.store.records import (
    ClusterRecord,
    KeyKind,
    KeyRecord,
    ModuleRecord,
    NodeRecord,
    SwarmRecord,
    UserRecord,
)
from manta.manager.store.sqlite import SqliteStore
from manta.manager.swarm.events import Created, Stopped, encode
from manta.protocol.clusters import ClusterInfo
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import SwarmInfo
from manta.transports.security.keys import write_private

SPEC = SwarmSpec("one", (TaskSpec("task", "m"),), (ModuleSpec("m", image="none"),))


def ids(kind: str, count: int = 7) -> list[str]:
    """They begin alike."""
    return [f"{kind}{number:028x}" for number in range(count)]


@pytest.fixture
def many(bench, cluster: ClusterInfo) -> None:
    """Seven of everything."""
    bench.stop()
    store = SqliteStore(bench.home / "manta.db")
    owner = cluster.owner_id
    for id_ in ids("5a5a"):
        info = SwarmInfo(id_, f"swarm-{id_[-1]}", cluster.id, "STOPPED", ended_at=1.0)
        log = AppendEvents(id_, 1, (encode(Created(SPEC), 0.0), encode(Stopped(), 1.0)))
        store.commit([Put(SwarmRecord(info, owner)), log])
    for id_ in ids("c1c1"):
        store.commit([Put(ClusterRecord(id_, f"cluster-{id_[-1]}", owner, 0.0))])
    for id_ in ids("0d0d"):
        node = NodeRecord(id_, cluster.id, f"more-{id_[-1]}", f"key-{id_}", 0.0)
        store.commit([Put(node), Put(KeyRecord(node.key, KeyKind.NODE, id_, 0.0))])
    for id_ in ids("e5e5"):
        store.commit([Put(UserRecord(id_, f"{id_[-1]}@lab", "", 0.0))])
    for id_ in ids("b0b0"):
        spec = ModuleSpec(f"module-{id_[-1]}", image="none")
        store.commit([Put(ModuleRecord(id_, spec, owner, 0.0, 0.0))])
    store.close()
    bench.start()


@pytest.fixture
def api(bench, many: None) -> Iterator[UserAPI]:
    host, port = bench.users_at.removeprefix("tcp://").split(":")
    target = Target(host, int(port), "test", server_key=bench.key)
    with UserAPI.over(Session(target, bench.admin_keys)) as api:
        yield api


def test_all_say_how_many_it_may_be_and_what_to_do(bench, api: UserAPI, tmp_path: Path) -> None:
    host, port = bench.users_at.removeprefix("tcp://").split(":")
    profile = {"host": host, "port": int(port), "server_key": bench.key}
    write_private(tmp_path / "profiles" / "default.json", json.dumps(profile))
    bench.admin_keys.save(tmp_path / "keys" / "default.key")
    for kind, start, get, remove, words in (
        ("swarm", "5a5a", api.get_swarm, api.remove_swarm, ("results",)),
        ("cluster", "c1c1", api.get_cluster, api.delete_cluster, ("cluster", "show")),
        ("node", "0d0d", api.get_node, api.remove_node, ("node", "show")),
        ("user", "e5e5", api.get_user, api.delete_user, ("user", "show")),
        ("module", "b0b0", api.get_module, api.remove_module, ("module", "show")),
    ):
        for call in (get, remove):
            with pytest.raises(errors.Ambiguous) as told:
                call(start)
            sentence = str(told.value)
            assert sentence.startswith(f"'{start}' may be any of 7 {kind}s"), sentence
            assert "give more of the id" in sentence
        done = subprocess.run(
            [sys.executable, "-m", "manta", *words, start],
            env={**os.environ, "MANTA_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (Exit.NOT_FOUND, ""), (words, done.stderr)
        assert done.stderr.startswith(f"Error: '{start}' may be any of 7 {kind}s")
        # The whole id is clear.
        whole = ids(start)[3]
        found = get(whole)
        assert getattr(found, "swarm_id", None) or found.id == whole
    assert len(api.list_swarms()) == len(api.list_modules()) == 7
