"""A manager with a swarm of 260,000 events that still runs, which starts again: until it answers
about that swarm, and what its process holds then. Budgets: 2 s, and 120 MB."""

from __future__ import annotations

import itertools
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from manta.manager.home import Home
from manta.manager.service import Manager, Settings
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    JournalEntry,
    MetricsLogged,
    ResultWritten,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import GetSwarm, SendSwarm, StartSwarm
from manta.protocol.values import Inline
from manta.testing.manager import Client, FakeNode
from manta.transports.security.keys import KeyPair
from tests.benchmarks._measure import pss

EVENTS = 260_000
ANYWHERE = "tcp://127.0.0.1:0"
ITERATIONS = 100_000
"""More than it comes to."""


class Lab:
    """The home of a manager, and the keys of those who are known there."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "manager")
        self.admin = KeyPair.generate()
        self.nodes = [KeyPair.generate() for _ in range(4)]
        self.bootstrap = folder / "bootstrap.json"
        nodes = [{"alias": f"node-{at}", "key": keys.public} for at, keys in enumerate(self.nodes)]
        admin = {"email": "me@localhost", "key": self.admin.public}
        told = {"admin": admin, "cluster": {"name": "lab"}, "nodes": nodes}
        self.bootstrap.write_text(json.dumps(told))
        self.bootstrap.chmod(0o600)

    def events(self) -> int:
        with closing(sqlite3.connect(self.home.database)) as store:
            [count] = store.execute("SELECT count(*) FROM events").fetchone()
        return int(count)

    def fill(self) -> str:
        """Runs a swarm until so many events are stored; returns its id."""
        over = False

        def work(assignment: Assignment) -> list[JournalEntry]:
            at = assignment.instance
            began: list[JournalEntry] = [TaskStarted(at, 0.0)]
            if over:
                return began
            value = Inline(f"{at.alias}.{at.index}@{at.iteration}".encode())
            said: list[JournalEntry] = [*began, ResultWritten(at, "done", value)]
            if at.alias == "aggregator":
                said.append(GlobalWritten(at, "model", value))
                said.append(MetricsLogged(at, {"loss": 0.5}, at.iteration, 0.0))
            return [*said, TaskEnded(at, "FINISHED", 0.0)]

        settings = Settings(self.home.path, ANYWHERE, ANYWHERE, ANYWHERE, bootstrap=self.bootstrap)
        manager = Manager(settings)
        with ExitStack() as undo:
            undo.callback(manager.stop)
            key = manager.file.public_key
            for at, keys in enumerate(self.nodes):
                node = FakeNode(manager.file.nodes, key, alias=f"node-{at}", keys=keys, script=work)
                undo.enter_context(node)
            admin = undo.enter_context(Client(manager.file.users, key, keys=self.admin))
            graph = SwarmSpec(
                name="fl",
                tasks=(
                    TaskSpec("worker", "module"),
                    TaskSpec(
                        "aggregator", "module", after=(Edge("worker"),), method="any", maximum=1
                    ),
                ),
                modules=(ModuleSpec("module", image="none"),),
                max_iteration=ITERATIONS,
            )
            swarm_id: str = admin.ask(SendSwarm("lab", graph)).swarm_id
            admin.ask(StartSwarm(swarm_id))
            while self.events() < EVENTS:
                time.sleep(1.0)
            over = True
            time.sleep(2.0)  # what is under way is stored, and nothing else comes
        return swarm_id


@contextmanager
def started(home: Home) -> Iterator[subprocess.Popen[bytes]]:
    home.manager_file.unlink(missing_ok=True)
    addresses = itertools.chain(*((f"--{name}", ANYWHERE) for name in ("nodes", "users", "bulk")))
    command = [sys.executable, "-m", "manta.manager", "--home", str(home.path), *addresses]
    process = subprocess.Popen([*command, "--log-level", "ERROR"], stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="manta-bench-") as folder:
        lab = Lab(Path(folder))
        swarm_id = lab.fill()
        began = time.perf_counter()
        with started(lab.home) as process:
            while (file := lab.home.read_manager_file()) is None:
                time.sleep(0.01)
            users = file.users.replace("0.0.0.0", "127.0.0.1")
            with Client(users, file.public_key, keys=lab.admin) as admin:
                info = admin.ask(GetSwarm(swarm_id))
                took = time.perf_counter() - began
                print(f"{lab.events():,} events of a swarm that is {info.status}:")
                print(f"the manager answers {took:.2f} s after its process began")
                print(f"and holds {pss(process.pid) / 1e6:.0f} MB (PSS)")


if __name__ == "__main__":
    main()
