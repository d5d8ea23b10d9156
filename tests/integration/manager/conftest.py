"""A real manager in this process, on real sockets, with an administrator and a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from nacl.pwhash import argon2id

from manta.manager.auth import passwords
from manta.manager.cluster import nodes as cluster_nodes
from manta.manager.cluster.lease import Leases
from manta.manager.service import Manager, Settings
from manta.manager.store.interface import Store
from manta.protocol.clusters import ClusterInfo, ListClusters
from manta.protocol.values import BlobRef
from manta.testing.manager import Client, FakeNode, Script, finish
from manta.transports.security.keys import KeyPair

ANY = "tcp://127.0.0.1:0"


class Bench:
    """What a test needs of a manager: `admin` is signed in, `cluster` is there."""

    def __init__(self, home: Path, undo: ExitStack) -> None:
        self.home = home
        self.undo = undo
        self.admin_keys = KeyPair.generate()
        self.node_keys = [KeyPair.generate() for _ in range(4)]
        bootstrap = home.parent / "bootstrap.json"
        bootstrap.write_text(
            json.dumps(
                {
                    "admin": {"email": "me@localhost", "key": self.admin_keys.public},
                    "cluster": {"name": "lab"},
                    "nodes": [
                        {"alias": f"node-{number}", "key": keys.public}
                        for number, keys in enumerate(self.node_keys, 1)
                    ],
                }
            )
        )
        bootstrap.chmod(0o600)
        self.settings = Settings(home, ANY, ANY, ANY, bootstrap=bootstrap)

    def start(self, open_store: Callable[[], Store] | None = None) -> None:
        self.manager = Manager(self.settings, open_store=open_store)
        self.undo.callback(self.manager.stop)
        file = self.manager.file
        self.nodes_at, self.users_at, self.key = file.nodes, file.users, file.public_key

    def stop(self) -> None:
        """It can be started again, at the same addresses."""
        file = self.manager.file
        self.settings = replace(
            self.settings, nodes=file.nodes, users=file.users, bulk=file.bulk, bootstrap=None
        )
        self.manager.stop()

    def restart(self, open_store: Callable[[], Store] | None = None) -> None:
        self.stop()
        self.start(open_store)

    @property
    def system(self):
        return self.manager.system

    def client(self, keys: KeyPair | None = None, at: str = "") -> Client:
        return self.undo.enter_context(Client(at or self.users_at, self.key, keys=keys))

    def pushed(self, node: FakeNode, data: bytes) -> BlobRef:
        """A blob that is here as if the node had pushed it."""
        context = self.manager.context
        ref = BlobRef(context.depot.put(data), len(data))
        context.access.lend(context.principals.of(node.keys.public), ref.digest)
        return ref

    def node(self, number: int = 1, script: Script = finish, **options) -> FakeNode:
        options.setdefault("keys", self.node_keys[number - 1])
        options.setdefault("alias", f"node-{number}")
        node = FakeNode(self.nodes_at, self.key, script=script, **options)
        return self.undo.enter_context(node)


@pytest.fixture(autouse=True)
def _settle_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every test starts all nodes that the manager waits for."""
    monkeypatch.setattr(cluster_nodes, "Leases", partial(Leases, hold=0.5))


@pytest.fixture(autouse=True)
def _hash_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hash of a password costs is for the tests of floods, and for those of hashes."""
    monkeypatch.setattr(passwords, "MEMORY", argon2id.MEMLIMIT_MIN)
    monkeypatch.setattr(passwords, "PASSES", argon2id.OPSLIMIT_MIN)
    monkeypatch.setattr(passwords, "_NOBODY", passwords.hash_password("nobody knows it"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as undo:
        bench = Bench(tmp_path / "manager", undo)
        bench.start()
        yield bench


@pytest.fixture
def admin(bench: Bench) -> Client:
    return bench.client(bench.admin_keys)


@pytest.fixture
def cluster(admin: Client) -> ClusterInfo:
    [cluster] = admin.ask(ListClusters()).clusters
    return cluster


@pytest.fixture
def nodes(bench: Bench) -> Callable[..., list[FakeNode]]:
    def start(count: int, script: Script = finish, **options) -> list[FakeNode]:
        started = [bench.node(number, script, **options) for number in range(1, count + 1)]
        for node in started:
            assert node.registered.wait(60)
        return started

    return start
