"""Guests at the ports of a manager: they leave, and who signs in or enrols stays."""

from __future__ import annotations

import json
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import pytest

from manta.manager.home import Home, StrangerSettings
from manta.manager.service import Manager
from manta.protocol.clusters import CreateCluster, CreateNodeToken, ListClusters, RemoveNode
from manta.protocol.sign_in import Bind, CreateUserToken
from manta.testing import wait_until
from manta.testing.curve import CurveClient
from manta.testing.manager import Client
from manta.transports.addresses import split_address
from manta.transports.errors import DownReason
from manta.transports.security.keys import KeyPair
from tests.support.children import Child

ANY = "tcp://127.0.0.1:0"
PATIENCE = 2.0


def begin(bench, strangers: StrangerSettings):
    bench.stop()
    bench.settings = replace(bench.settings, strangers=strangers)
    bench.start()
    return bench


@pytest.fixture
def strict(bench):
    """A manager that has less patience, and room for few."""
    return begin(bench, StrangerSettings(patience=PATIENCE, guests_per_source=5))


def some_left(guests: list[Client]) -> bool:
    return any(DownReason.CLOSED in guest.states for guest in guests)


def test_a_guest_that_does_not_sign_in_leaves_on_either_port(strict) -> None:
    guests = [strict.client(at=at) for at in (strict.nodes_at, strict.users_at)]
    wait_until(lambda: all(DownReason.CLOSED in guest.states for guest in guests))
    wait_until(lambda: strict.manager.context.tally.counts()["late"] >= 2)


def test_who_signs_in_or_enrols_in_time_stays(strict) -> None:
    admin = strict.client(strict.admin_keys)
    token = admin.ask(CreateNodeToken("lab")).token
    node = strict.node(keys=None, alias="newcomer", token=token)
    assert node.registered.wait(60)
    unbound = admin.ask(CreateUserToken()).token
    newcomer = strict.client()
    newcomer.ask(Bind(unbound))
    states = len(newcomer.states)
    leaves = strict.client()
    wait_until(lambda: DownReason.CLOSED in leaves.states)  # who came after them
    assert newcomer.ask(ListClusters()) is not None
    assert (len(newcomer.states), node.registrations) == (states, 1)


def test_a_crowd_of_guests_leaves_those_who_are_known_alone(strict) -> None:
    admin, node = strict.client(strict.admin_keys), strict.node(1)
    assert node.registered.wait(60)
    admin.ask(ListClusters())
    states = len(admin.states)
    for at in (strict.nodes_at, strict.users_at):
        guests = [strict.client(at=at) for _ in range(12)]
        wait_until(partial(some_left, guests))
        admin.ask(ListClusters())
        for guest in guests:
            guest.close()
    assert strict.manager.context.tally.counts()["crowded"] >= 2
    assert (len(admin.states), node.registrations) == (states, 1)


def test_the_key_of_a_node_that_was_removed_is_a_strangers_also_after_a_restart(strict) -> None:
    admin, node = strict.client(strict.admin_keys), strict.node(1)
    assert node.registered.wait(60)
    node.close()
    admin.ask(RemoveNode(node.node_id))
    admin.close()
    strict.restart()
    removed = strict.client(strict.node_keys[0], at=strict.nodes_at)
    wait_until(lambda: DownReason.CLOSED in removed.states)


def test_what_became_of_them_is_in_the_folder(strict) -> None:
    manager: Manager = strict.manager
    assert manager.home.read_strangers_file().unfinished == 0
    with CurveClient(strict.users_at, strict.key).connect():  # which does not come again
        wait_until(lambda: manager.context.tally.counts()["unfinished"])
    manager.note_strangers()
    written = manager.home.strangers_file.stat().st_mtime_ns
    assert manager.home.read_strangers_file().unfinished == 1
    manager.note_strangers()  # nothing has changed
    assert manager.home.strangers_file.stat().st_mtime_ns == written


def test_what_was_set_is_kept_over_starts_and_what_was_not_stays_open(bench) -> None:
    begin(bench, StrangerSettings(patience=30.0))
    home = bench.manager.home
    assert json.loads(home.settings_file.read_bytes())["strangers"] == {"patience": 30.0}
    assert home.read_settings().strangers == StrangerSettings(patience=30.0)
    assert bench.manager.context.limits.patience == 30.0


@pytest.mark.parametrize(
    "wrong", [{"patience": 0}, {"guests": "many"}, {"patiance": 10}, {"rate": -1}]
)
def test_what_cannot_be_set_is_named(bench, wrong) -> None:
    home = bench.manager.home
    settings = json.loads(home.settings_file.read_bytes())
    home.settings_file.write_text(json.dumps({**settings, "strangers": wrong}))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        home.read_settings()


def few_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))


def test_with_few_descriptors_who_is_known_is_served_beside_hundreds_who_say_nothing(
    tmp_path,
) -> None:
    keys = KeyPair.generate()
    bootstrap = tmp_path / "bootstrap.json"
    bootstrap.write_text(json.dumps({"admin": {"email": "a@b", "key": keys.public}}))
    bootstrap.chmod(0o600)
    home = Home(tmp_path / "manager")
    where = [f"--{name}={ANY}" for name in ("nodes", "users", "bulk")]
    command = ["--home", str(home.path), *where, "--bootstrap", str(bootstrap)]
    with (
        Child[bytes](
            [sys.executable, "-m", "manta.manager", *command],
            stderr=subprocess.DEVNULL,
            preexec_fn=few_descriptors,
        ) as process,
        ExitStack() as undo,
    ):
        wait_until(lambda: home.running() is not None)
        file = home.running()
        assert file is not None
        known = undo.enter_context(Client(file.users, file.public_key, keys=keys))
        known.ask(CreateCluster("lab"))
        states = len(known.states)
        for address in (file.nodes, file.users, file.bulk):
            for _ in range(150):
                where_to = split_address(address)
                undo.enter_context(socket.create_connection(where_to, timeout=20))
            known.ask(ListClusters())
        newcomer = undo.enter_context(Client(file.users, file.public_key, keys=keys))
        assert [one.name for one in newcomer.ask(ListClusters(), 20).clusters] == ["lab"]
        assert len(known.states) == states
        wait_until(lambda: home.read_strangers_file().crowded > 300)
        process.terminate()
        assert process.wait(60) == 0
