"""What is attacked: a fresh manager with two nodes, and a user who goes on working beside it."""

from __future__ import annotations

import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import psutil

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import MantaError
from manta.apis.user_api import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.protocol.sign_in import SignIn
from manta.testing.clusters import running
from manta.transports.security.keys import KeyPair
from tests.attacks.guest import Guest

MIB = 1024 * 1024
PEOPLE = 5
_SAMPLES = 0.05
"""Seconds from one look at the manager's process to the next."""
_ASKS = 0.02
"""Seconds from one ask of the user to the next."""
_LONGEST = 60.0
"""Seconds within which an attack is over."""
_SETTLES = 5.0
"""Seconds within which what an attack took is given back."""


class Place(NamedTuple):
    """Where the manager is, and the key of a user with every right."""

    users: str
    nodes: str
    bulk: str
    key: str
    admin: tuple[str, str]
    folder: str
    people: tuple[tuple[str, str, str], ...] = ()
    """Users without a role: address, and the two halves of a key that is signed in."""

    def connect(self, keys: KeyPair | None = None) -> UserAPI:
        """Opens the SDK as the administrator, or as whoever holds the keys."""
        host, _, port = self.users.removeprefix("tcp://").rpartition(":")
        where = Target(host, int(port), "attack", server_key=self.key)
        return UserAPI.over(Session(where, keys or KeyPair(*self.admin)))


class Attack(NamedTuple):
    """`run` is a function of a module, which runs in a process of its own and returns what came of
    it, in a few words."""

    who: str
    what: str
    run: Callable[[Place], str]


class Usage(NamedTuple):
    """What the manager holds at a moment."""

    memory: int
    threads: int
    descriptors: int


class Report(NamedTuple):
    """What an attack came to: the most that the manager grew meanwhile, what it kept, and how long
    a user waited for answers."""

    told: str
    peak: Usage
    kept: Usage
    disk: int
    waited: float
    ended: list[str]


class Field:
    """A manager, its nodes and a user, for one attack after another."""

    def __init__(self, cluster: LocalCluster, attacker: Executor) -> None:
        self._cluster = cluster
        self._attacker = attacker
        manager = cluster.children[0].process
        self._manager = psutil.Process(manager.pid)
        command = self._manager.cmdline()
        users, nodes, bulk = (
            command[command.index(f"--{name}") + 1] for name in ("users", "nodes", "bulk")
        )
        admin = (cluster.keys.public, cluster.keys.secret)
        key = cluster.manager_keys.public
        self.place = Place(users, nodes, bulk, key, admin, str(cluster.folder))
        self.asks = cluster.folder / "asks"

    def usage(self) -> Usage:
        with self._manager.oneshot():
            memory = self._manager.memory_info().rss
            return Usage(memory, self._manager.num_threads(), self._manager.num_fds())

    def disk(self) -> int:
        home = self._cluster.folder / "manager"
        return sum(file.stat().st_size for file in home.rglob("*") if file.is_file())

    def waited(self, since: float, until: float) -> float:
        """The 95th percentile of what the user's asks took that began in that time, in seconds."""
        took = []
        for line in self.asks.read_text().splitlines():
            at, seconds = map(float, line.split())
            if since <= at <= until:
                took.append(seconds)
        if len(took) < 2:  # one of them took all the time
            return until - since
        return statistics.quantiles(took, n=20)[-1]

    def ended(self) -> list[str]:
        return [child.name for child in self._cluster.dead]

    def measure(self, attack: Attack) -> Report:
        before, disk = self.usage(), self.disk()
        most = list(before)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_SAMPLES):
                try:
                    usage = self.usage()
                except psutil.Error:
                    return
                most[:] = map(max, most, usage)

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        try:
            told = self._attacker.submit(attack.run, self.place).result(_LONGEST)
        finally:
            until = time.monotonic()
            over.set()
            watcher.join()
        kept = self._settled(before)
        grown = Usage(*(now - then for now, then in zip(most, before, strict=True)))
        return Report(
            told, grown, kept, self.disk() - disk, self.waited(began, until), self.ended()
        )

    def _settled(self, before: Usage) -> Usage:
        """What is left of what it held more, once descriptors and threads are given back."""
        deadline = time.monotonic() + _SETTLES
        while not self.ended():
            kept = Usage(*(now - then for now, then in zip(self.usage(), before, strict=True)))
            if (kept.threads <= 0 and kept.descriptors <= 0) or time.monotonic() > deadline:
                return kept
            time.sleep(0.1)
        return Usage(0, 0, 0)


def ask(place: Place) -> None:
    """A user who asks again and again, and writes down when and how long it took."""
    with place.connect() as api, open(Path(place.folder) / "asks", "w", buffering=1) as file:
        while True:
            began = time.monotonic()
            try:
                api.list_nodes(CLUSTER)
            except MantaError:
                time.sleep(_ASKS)  # what it took tells
            file.write(f"{began} {time.monotonic() - began}\n")
            time.sleep(_ASKS)


@contextmanager
def field(nodes: int = 2) -> Iterator[Field]:
    """A fresh manager with so many nodes, beside which a user goes on working."""
    spawn = get_context("spawn")
    with running(LocalCluster, nodes) as cluster, ProcessPoolExecutor(1, spawn) as attacker:
        here = Field(cluster, attacker)
        user = spawn.Process(target=ask, args=(here.place,), daemon=True)
        user.start()
        try:
            while not here.asks.exists():
                time.sleep(0.05)
            # Beforehand, since a password takes 64 MiB and a tenth of a second.
            here.place = here.place._replace(people=tuple(_people(here.place)))
            yield here
        finally:
            user.kill()
            user.join()


def _people(place: Place) -> Iterator[tuple[str, str, str]]:
    with place.connect() as admin:
        for number in range(PEOPLE):
            address, word, keys = f"{number}@example.org", secrets.token_hex(), KeyPair.generate()
            admin.add_user(address, word)
            guest = Guest(place.users, place.key, keys)
            guest.greet()
            guest.ask(SignIn(address, word))
            guest.close()
            yield address, keys.public, keys.secret
