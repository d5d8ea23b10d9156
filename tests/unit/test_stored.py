"""Each kind of file that earlier versions left can be read."""

from __future__ import annotations

import time
import tomllib
from collections import Counter

import pytest

from manta.apis.connect import profiles
from manta.apis.connect.profiles import Profile
from manta.cli.local import up_state
from manta.manager.home import Home
from manta.manager.store import records
from manta.manager.store.sqlite import SqliteStore
from manta.node.config import parse
from manta.node.journal.files import Journals
from manta.node.state import StateFolder
from manta.protocol.node import (
    JournalBatch,
    LogBatch,
    MetricsLogged,
    ResultWritten,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.values import BlobRef
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.security.keys import KeyPair
from tests.support.stored import VERSIONS, Stored


@pytest.fixture(scope="module", params=VERSIONS)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return Stored(request.param, tmp_path_factory.mktemp("stored"))


def test_the_managers_database(stored: Stored) -> None:
    store = SqliteStore(Home(stored.home / "manager").database)
    try:
        (cluster,) = store.all(records.ClusterRecord)
        assert {node.alias for node in store.all(records.NodeRecord)} == {"a", "b"}
        assert {node.cluster_id for node in store.all(records.NodeRecord)} == {cluster.id}
        assert {user.email for user in store.all(records.UserRecord)} == {
            "admin@localhost",
            "second@localhost",
        }
        for kind in (records.KeyRecord, records.TokenRecord, records.GrantRecord):
            store.all(kind)
        assert {module.spec.name for module in store.all(records.ModuleRecord)} == {"module"}
        swarms = {swarm.info.swarm_id for swarm in store.all(records.SwarmRecord)}
        assert swarms == {stored.done, stored.under_way}
        assert all(list(store.events(swarm)) for swarm in swarms)
        assert len(store.logs(stored.done)) == len(stored.said["logs"])
    finally:
        store.close()


def test_the_managers_file_and_key(stored: Stored) -> None:
    home = Home(stored.home / "manager")
    file = home.read_manager_file()
    assert file is not None
    assert KeyPair.load(home.key).public == file.public_key


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_nodes_state(stored: Stored, name: str) -> None:
    state = StateFolder(stored.node(name))
    identity, status = state.read_identity(), state.read_status()
    assert identity is not None
    assert status is not None
    assert identity.alias == status.alias == name
    assert state.key().public == KeyPair.load(state.key_file).public
    file = stored.home / "nodes" / f"{name}.toml"
    config = parse(file.read_text(), file, {})
    assert config.manager_host == "127.0.0.1"
    assert config.labels == tomllib.loads(file.read_text())["labels"] == {"room": name}


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_nodes_journal(stored: Stored, name: str) -> None:
    """What the manager never heard is in it, with the blobs that it names."""
    state = StateFolder(stored.node(name))
    spool = FileDepot(state.spool)
    journals = Journals(state.journal, spool, time.monotonic)
    try:
        open_ = [at.iteration for at in journals.all_open() if at.swarm_id == stored.under_way]
        assert open_ == [2]
        blobs = journals.blobs_to_push()
        assert {blob.digest for blob in blobs} >= set(spool)
        for blob in blobs:
            journals.pushed(blob.digest)
        due = [batch for batch in journals.due() if batch.swarm_id == stored.under_way]
    finally:
        journals.close()
    (entries,) = (batch.entries for batch in due if isinstance(batch, JournalBatch))
    (lines,) = (batch.lines for batch in due if isinstance(batch, LogBatch))
    kinds = Counter(type(entry) for entry in entries)
    assert kinds[TaskStarted] == kinds[TaskEnded] + 1 == 3
    assert kinds[MetricsLogged] >= 6
    written = [entry.value for entry in entries if isinstance(entry, ResultWritten)]
    assert sum(isinstance(value, BlobRef) for value in written) >= 6
    assert [line.text for line in lines] == [f"step {step}" for step in range(len(lines))]


def test_a_users_profile(stored: Stored) -> None:
    environment = {"MANTA_HOME": str(stored.home)}
    target = profiles.resolve(environment=environment)
    assert (target.host, target.profile) == ("127.0.0.1", "default")
    assert target.token is not None
    bound_to = profiles.claims(target.token).bound_to
    assert bound_to == profiles.user_key(stored.home, "default").public


def test_what_manta_up_left(stored: Stored) -> None:
    up = up_state.read(stored.up)
    assert up is not None
    assert (up.cluster, up.nodes, up.previous) == ("local", ("node-1",), None)
    assert profiles.used_profile(stored.up) == up_state.PROFILE
    saved = profiles.load_profile(stored.up, up_state.PROFILE, required=True)
    assert isinstance(saved, Profile)
    assert (saved.host, saved.port) == (up.host, up.port)
