from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from manta.manager import bootstrap
from manta.manager.errors import StartError
from manta.manager.store.records import ClusterRecord, KeyRecord, NodeRecord, UserRecord
from manta.testing.stores.memory import MemoryStore

KEYS = ["a" * 40, "b" * 40, "c" * 40]
GOOD: dict[str, Any] = {
    "admin": {"email": "Me@localhost", "key": KEYS[0]},
    "cluster": {"name": "local"},
    "nodes": [{"alias": "node-1", "key": KEYS[1]}, {"alias": "node-2", "key": KEYS[2]}],
}


def write(tmp_path: Path, content: Any, mode: int = 0o600) -> Path:
    path = tmp_path / "bootstrap.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(mode)
    return path


def test_what_is_known_from_the_start_is_stored(tmp_path: Path) -> None:
    store = MemoryStore()
    assert bootstrap.is_empty(store)
    bootstrap.apply(store, bootstrap.read(write(tmp_path, GOOD)))
    assert not bootstrap.is_empty(store)
    [user], [cluster] = store.all(UserRecord), store.all(ClusterRecord)
    nodes = sorted(store.all(NodeRecord), key=lambda node: node.alias)
    assert (user.email, user.password) == ("me@localhost", "")
    assert (cluster.name, cluster.owner_id) == ("local", user.id)
    assert [(node.alias, node.key, node.cluster_id) for node in nodes] == [
        ("node-1", KEYS[1], cluster.id),
        ("node-2", KEYS[2], cluster.id),
    ]
    owners = {key.key: (key.kind, key.subject) for key in store.all(KeyRecord)}
    assert owners == {
        KEYS[0]: ("user", user.id),
        KEYS[1]: ("node", nodes[0].id),
        KEYS[2]: ("node", nodes[1].id),
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "bootstrap.json is not valid"),
        ("[" * 100_000, "bootstrap.json is not valid"),
        ({**GOOD, "users": []}, "unknown field `users`"),
        ({"cluster": {"name": "x"}}, "missing required field `admin`"),
        ({**GOOD, "admin": {"email": "x", "key": "short"}}, "not a CURVE key"),
        ({**GOOD, "cluster": None}, "nodes but no cluster"),
        ({**GOOD, "nodes": [GOOD["nodes"][0], {"alias": "node-1", "key": KEYS[2]}]}, "one alias"),
    ],
)
def test_a_bad_file_is_refused_with_a_sentence(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(StartError, match=says):
        bootstrap.read(write(tmp_path, content))


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="chmod 600"):
        bootstrap.read(write(tmp_path, GOOD, mode=0o644))
    with pytest.raises(StartError, match=r"other\.json"):
        bootstrap.read(tmp_path / "other.json")


def test_without_a_file_there_is_an_administrator_with_a_password_of_his_own() -> None:
    from manta.manager.auth.passwords import verify_password

    store = MemoryStore()
    password = bootstrap.first_admin(store)
    [user] = store.all(UserRecord)
    assert (user.email, user.role) == (bootstrap.ADMIN, "admin")
    assert password not in user.password
    assert verify_password(user.password, password)


def test_a_file_for_many_nodes_is_read_whole(tmp_path: Path) -> None:
    nodes = [{"alias": f"node-{n}", "key": f"{n:040}"} for n in range(5000)]
    path = write(tmp_path, {**GOOD, "nodes": nodes})
    assert path.stat().st_size > 5 * 64 * 1024
    assert len(bootstrap.read(path).nodes) == 5000


def test_a_file_that_cannot_be_one_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path, " " * (bootstrap.MOST + 1))
    with pytest.raises(StartError, match=r"bootstrap.json .* more than 16 MiB, the most that may"):
        bootstrap.read(path)
