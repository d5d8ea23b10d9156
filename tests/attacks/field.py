"""What is attacked: a fresh manager with two nodes, and a user who goes on working beside it."""

from __future__ import annotations

import math
import os
import secrets
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil
import zmq

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import MantaError
from manta.apis.user_api import UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.protocol.sign_in import SignIn
from manta.testing.clusters import running
from manta.transports.security.keys import KeyPair
from tests.attacks.guest import Guest
from tests.support.swarms import One

MIB = 1024 * 1024
PEOPLE = 5
_SAMPLES = 0.05
"""Seconds from one look at the manager's process to the next."""
_ASKS = 0.02
"""Seconds from one ask of the user to the next."""
_LONGEST = 60.0
"""Seconds within which an attack is over."""
_SETTLES = 15.0
"""Seconds within which what an attack took is given back."""
_ELSEWHERE = 19
"""How nice attackers are: each has a machine of its own, and here computes where nobody else does.
What tasks do is not theirs, but the nodes'."""
_REFUSED = "refused"


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
    bare: tuple[str, str] = ("", "")
    """The address and the key of a ROUTER that is none of Manta's."""

    def connect(self, keys: KeyPair | None = None) -> UserAPI:
        """Opens the SDK as the administrator, or as whoever holds the keys."""
        host, _, port = self.users.removeprefix("tcp://").rpartition(":")
        where = Target(host, int(port), "attack", server_key=self.key)
        return UserAPI.over(Session(where, keys or KeyPair(*self.admin)))


class Told(NamedTuple):
    """What came of an attack, in a few words, and what should not have been."""

    words: str
    wrong: str = ""
    is_over: bool = True
    since: float = 0.0
    """When it began, where something had to be set up first."""


class Attack(NamedTuple):
    """`run` is a function of a module, which runs in a process of its own."""

    who: str
    what: str
    run: Callable[[Place], Told]


class Usage(NamedTuple):
    """What a process holds at a moment."""

    memory: int
    threads: int
    descriptors: int

    def beyond(self, before: Usage) -> Usage:
        return Usage(*(now - then for now, then in zip(self, before, strict=True)))


class Report(NamedTuple):
    """What an attack came to: the most that the manager grew meanwhile, what it kept, the same of
    the node that grew most, what came onto the disk, and how long a user waited for answers."""

    told: Told
    peak: Usage
    kept: Usage
    node: Usage
    node_kept: Usage
    disk: int
    waited: float
    took: float
    ended: list[str]


class Field:
    """A manager, its nodes and a user, for one attack after another."""

    def __init__(self, cluster: LocalCluster, attacker: Executor) -> None:
        self._cluster = cluster
        self._attacker = attacker
        self._processes = [psutil.Process(child.process.pid) for child in cluster.children]
        """The manager's, and the nodes'."""
        command = self._processes[0].cmdline()
        users, nodes, bulk = (
            command[command.index(f"--{name}") + 1] for name in ("users", "nodes", "bulk")
        )
        admin = (cluster.keys.public, cluster.keys.secret)
        key = cluster.manager_keys.public
        self.place = Place(users, nodes, bulk, key, admin, str(cluster.folder))
        self.asks = cluster.folder / "asks"

    @property
    def manager(self) -> psutil.Process:
        return self._processes[0]

    def usage(self) -> list[Usage]:
        """Of the manager, and of each node."""
        found = []
        for process in self._processes:
            with process.oneshot():
                memory = process.memory_info().rss
                found.append(Usage(memory, process.num_threads(), process.num_fds()))
        return found

    def disk(self) -> int:
        """Bytes in the folders of the manager and of the nodes."""
        total = 0
        for file in self._cluster.folder.rglob("*"):
            try:
                total += file.lstat().st_size
            except FileNotFoundError:  # removed meanwhile
                continue
        return total

    def waited(self, since: float, until: float) -> float:
        """The 95th percentile of what the user's asks took that were under way in that time, in
        seconds; one that was refused took for ever."""
        took, last = [], 0.0
        for line in self.asks.read_text().splitlines():
            began, seconds, how = line.split()
            at, lasted = float(began), float(seconds)
            last = at + lasted
            if since <= at + lasted and at <= until:
                took.append(math.inf if how == _REFUSED else lasted)
        if last < until - 1:  # one that has no answer yet
            took.append(until - last)
        return statistics.quantiles(sorted(took), n=20)[-1] if len(took) > 1 else until - since

    def ended(self) -> list[str]:
        return [child.name for child in self._cluster.dead]

    def measure(self, attack: Attack) -> Report:
        before, disk = self.usage(), self.disk()
        most = list(before)
        over = threading.Event()

        def watch() -> None:
            while not over.wait(_SAMPLES):
                try:
                    now = self.usage()
                except psutil.Error:
                    return
                most[:] = [Usage(*map(max, *pair)) for pair in zip(most, now, strict=True)]

        watcher = threading.Thread(target=watch)
        watcher.start()
        began = time.monotonic()
        try:
            told = self._attacker.submit(attack.run, self.place).result(_LONGEST)
        except TimeoutError:
            told = Told(f"not over after {_LONGEST:g} s", "it did not end", is_over=False)
        finally:
            until = time.monotonic()
            over.set()
            watcher.join()
        kept = self._settled(before)
        grown = [now.beyond(then) for now, then in zip(most, before, strict=True)]
        node = max(range(1, len(grown)), key=lambda at: grown[at].memory)
        return Report(
            told,
            grown[0],
            kept[0],
            grown[node],
            kept[node],
            self.disk() - disk,
            self.waited(max(began, told.since), until),
            time.monotonic() - began,
            self.ended(),
        )

    def _settled(self, before: list[Usage]) -> list[Usage]:
        """What is left of what they held more, once descriptors and threads are given back."""
        deadline = time.monotonic() + _SETTLES
        while not self.ended():
            kept = [now.beyond(then) for now, then in zip(self.usage(), before, strict=True)]
            given_back = all(one.threads <= 0 and one.descriptors <= 0 for one in kept)
            if given_back or time.monotonic() > deadline:
                return kept
            time.sleep(0.1)
        return [Usage(0, 0, 0)] * len(before)


def take_all(pipe: Connection, keys: KeyPair) -> None:
    """A ROUTER with CURVE alone, which takes whatever comes; says where it listens."""
    router = zmq.Context().socket(zmq.ROUTER)
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = keys.public.encode(), keys.secret.encode()
    pipe.send(f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}")
    while True:
        router.recv_multipart()


def ask(place: Place) -> None:
    """A user who asks again and again, and writes down when and how long it took."""
    with place.connect() as api, open(Path(place.folder) / "asks", "w", buffering=1) as file:
        while True:
            began, how = time.monotonic(), "answered"
            try:
                api.list_nodes(CLUSTER)
            except MantaError:
                how = _REFUSED
            file.write(f"{began} {time.monotonic() - began} {how}\n")
            time.sleep(_ASKS)


@contextmanager
def _keeping_a_core() -> Iterator[Callable[[psutil.Process], None]]:
    """Whatever begins in here leaves the first core to the processes that the function is told of,
    which may have all: others' machines are not the manager's, and here they have to share one."""
    cores = sorted(os.sched_getaffinity(0))

    def give_all_cores(process: psutil.Process) -> None:
        for thread in process.threads():
            os.sched_setaffinity(thread.id, cores)

    os.sched_setaffinity(0, cores[1:] or cores)
    try:
        yield give_all_cores
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def field(nodes: int = 2, *, nice: int = _ELSEWHERE) -> Iterator[Field]:
    """A fresh manager with so many nodes, beside which a user goes on working."""
    spawn = get_context("spawn")
    with (
        _keeping_a_core() as give_all_cores,
        running(LocalCluster, nodes) as cluster,
        ProcessPoolExecutor(1, spawn, initializer=os.nice, initargs=(nice,)) as attacker,
    ):
        here = Field(cluster, attacker)
        keys, (told, tells) = KeyPair.generate(), spawn.Pipe(duplex=False)
        spawn.Process(target=take_all, args=(tells, keys), daemon=True).start()
        user = spawn.Process(target=ask, args=(here.place,), daemon=True)
        user.start()
        try:
            here.place = here.place._replace(bare=(told.recv(), keys.public))
            while not here.asks.exists():
                time.sleep(0.05)
            # Beforehand, since a password takes 64 MiB and a tenth of a second.
            here.place = here.place._replace(people=tuple(_people(here.place)))
            _warm_up(here.place)
            for process in (here.manager, psutil.Process(user.pid)):
                give_all_cores(process)
            yield here
        finally:
            for child in active_children():  # also an attacker that is not over
                child.kill()
                child.join()


def _warm_up(place: Place) -> None:
    """Has the processes make the threads and open the files that they keep."""
    with ThreadPoolExecutor(4) as threads:
        wrong = [threads.submit(_wrong_password, place) for _ in range(4)]
        wait(wrong)
    code = (
        "from manta.light import World\ndef main():\n    World().results.add('r', bytes(100_000))\n"
    )
    with place.connect() as api:
        for _ in range(2):
            swarm = api.deploy_swarm(CLUSTER, One(code, replicas=8))
            api.wait_swarm(swarm, timeout=_LONGEST)
            api.select_results(swarm, "r")
            api.collect_logs(swarm)
            api.remove_swarm(swarm)


def _wrong_password(place: Place) -> None:
    guest = Guest(place.users, place.key)
    guest.greet()
    guest.ask(SignIn("user@localhost", "wrong"))
    guest.close()


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
