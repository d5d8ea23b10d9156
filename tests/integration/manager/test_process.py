"""The manager as a process: how it starts, how it ends, and what is left when it is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.manager.home import Home, ManagerFile
from manta.protocol.clusters import CreateCluster, ListClusters
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    JournalEntry,
    ResultWritten,
    TaskEnded,
    TaskStarted,
)
from manta.protocol.sign_in import SignIn
from manta.protocol.spec import Edge, ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    DeleteResults,
    GetSwarm,
    GetTasks,
    ReadFeed,
    SelectGlobal,
    SendSwarm,
    StartSwarm,
    WaitSwarm,
)
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.blobs.digests import digest_of
from manta.transports.blobs.file_depot import FileDepot
from manta.transports.security.keys import KeyPair
from tests.support.children import signal_other_thread
from tests.support.ports import free_ports

ROUNDS = 20
SPEC = SwarmSpec(
    name="fl",
    tasks=(
        TaskSpec("worker", "module"),
        TaskSpec("aggregator", "module", after=(Edge("worker"),), method="any", maximum=1),
    ),
    modules=(ModuleSpec("module", image="none"),),
    max_iteration=ROUNDS,
)


class Process:
    def __init__(self, home: Path, *arguments: str, **options) -> None:
        self.home = Home(home)
        self.arguments = arguments
        self.options = options
        self.process: subprocess.Popen[str] = None  # type: ignore[assignment]  # until it starts

    def start(self) -> ManagerFile:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "manta.manager", "--home", str(self.home.path), *self.arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **self.options,
        )
        wait_until(self._is_up)
        file = self.home.read_manager_file()
        assert file is not None
        # Wherever it got to listen, it is to be found again.
        self.arguments = ("--nodes", file.nodes, "--users", file.users, "--bulk", file.bulk)
        return file

    def _is_up(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()[1]
        file = self.home.read_manager_file()
        return file is not None and file.pid == self.process.pid

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()


ANYWHERE = tuple(
    part for name in ("nodes", "users", "bulk") for part in (f"--{name}", "tcp://127.0.0.1:0")
)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Process]:
    with Process(tmp_path / "manager", *ANYWHERE) as process:
        yield process


def test_a_signal_that_any_thread_takes_ends_it(fresh: Process) -> None:
    fresh.start()
    signal_other_thread(fresh.process.pid, signal.SIGTERM)
    fresh.process.communicate(timeout=60)
    assert fresh.process.returncode == 0


def test_first_start_sign_in_and_orderly_stop(fresh: Process) -> None:
    file = fresh.start()
    assert file.pid == fresh.process.pid
    _, out, err = fresh.end()
    assert fresh.process.returncode == 0
    assert "manta sign-in" in out
    assert file.public_key in out
    password = out.partition("the password ")[2].split()[0]
    assert password not in err
    assert "listening" in err
    assert "stopping" in err
    assert not fresh.home.manager_file.exists()
    fresh.start()
    with Client(file.users, file.public_key) as client:
        signed_in = client.ask(SignIn("admin@localhost", password))
    _, out, err = fresh.end()
    assert out == ""  # said only once
    for secret in (password, signed_in.token, fresh.home.signing_key.read_text().strip()):
        assert secret not in err
    for line in err.splitlines():
        day, clock, level, *_ = line.split()
        time.strptime(f"{day} {clock.partition(',')[0]}", "%Y-%m-%d %H:%M:%S")
        assert level in ("INFO", "WARNING")
    modes = {
        path.name: path.stat().st_mode & 0o077
        for path in (fresh.home.path, *fresh.home.path.iterdir())
        if path.name != "blobs"
    }
    assert set(modes.values()) == {0}, modes


def test_in_the_background_its_first_password_is_in_no_file_and_no_secret_in_its_environment(
    tmp_path: Path,
) -> None:
    secrets = {"MANTA_PASSPHRASE": "horse-battery", "MANTA_NODE_TOKEN": "a-node-token"}

    def manta(*arguments: str) -> str:
        code = "import sys; from manta.cli.main import main; sys.exit(main())"
        done = subprocess.run(
            [sys.executable, "-c", code, "manager", *arguments],
            env={**os.environ, "MANTA_HOME": str(tmp_path), **secrets},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return done.stdout

    names = ("--node-port", "--user-port", "--bulk-port")
    where = [str(part) for pair in zip(names, free_ports(), strict=True) for part in pair]
    out = manta("start", "--host", "127.0.0.1", *where, "--background")
    try:
        password = out.partition("the password ")[2].split()[0]
        pid = json.loads((tmp_path / "manager" / "manager.json").read_text())["pid"]
        variables = Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        manta("stop")
    assert not [secret for secret in secrets.values() if secret.encode() in variables]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert password.encode() not in kept
    assert b"listening" in (tmp_path / "manager" / "manager.log").read_bytes()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manta.manager", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def sentence_of(failed: subprocess.CompletedProcess[str]) -> str:
    assert failed.returncode == Exit.LOCAL
    [line] = [line for line in failed.stderr.splitlines() if not line[:4].isdecimal()]
    assert line.startswith("The manager cannot start: ")
    return line


@pytest.mark.parametrize("port", ["nodes", "users", "bulk"])
def test_a_taken_port_is_one_sentence(tmp_path: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        failed = run("--home", str(tmp_path / "m"), *ANYWHERE, f"--{port}", address)
    assert address in sentence_of(failed)
    assert "Traceback" not in failed.stderr


def test_two_managers_do_not_share_a_folder(fresh: Process) -> None:
    fresh.start()
    sentence = sentence_of(run("--home", str(fresh.home.path), *ANYWHERE))
    assert f"(pid {fresh.process.pid})" in sentence


def test_a_folder_that_others_can_read_is_refused(tmp_path: Path) -> None:
    home = tmp_path / "m"
    home.mkdir(mode=0o755)
    assert "chmod 700" in sentence_of(run("--home", str(home), *ANYWHERE))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("manta.db", b"no database" * 1000, "file is not a database"),
        ("signing.key", b"xyz", "signing.key is damaged"),
        ("manager.key", b"xyz", "manager.key is not a key file"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    home = tmp_path / "m"
    home.mkdir(mode=0o700)
    (home / name).write_bytes(content)
    (home / name).chmod(0o600)
    assert says in sentence_of(run("--home", str(home), *ANYWHERE))


def test_a_bad_bootstrap_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    file.write_text("{}")
    file.chmod(0o600)
    arguments = ("--home", str(tmp_path / "m"), *ANYWHERE, "--bootstrap", str(file))
    assert "missing required field `admin`" in sentence_of(run(*arguments))


def test_it_takes_sockets_that_its_parent_opened(tmp_path: Path) -> None:
    with ExitStack() as undo:
        sockets = [undo.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        fds = [one.fileno() for one in sockets]
        addresses = [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
        process = undo.enter_context(
            Process(
                tmp_path / "m",
                *("--nodes", addresses[0], "--users", addresses[1], "--bulk", addresses[2]),
                *("--fds", ",".join(map(str, fds))),
                pass_fds=fds,
            )
        )
        # A client may connect before the manager is there.
        keys = KeyPair.generate()
        bootstrap = tmp_path / "b.json"
        bootstrap.write_text(json.dumps({"admin": {"email": "a@b", "key": keys.public}}))
        bootstrap.chmod(0o600)
        process.arguments += ("--bootstrap", str(bootstrap))
        file = process.start()
        assert [file.nodes, file.users, file.bulk] == addresses
        with Client(file.users, file.public_key, keys=keys) as client:
            assert client.ask(CreateCluster("lab")).name == "lab"


# Killed.


def work(assignment: Assignment) -> list[JournalEntry]:
    at = assignment.instance
    time.sleep(0.01)
    value = Inline(f"{at.alias}.{at.index}@{at.iteration}".encode())
    return [TaskStarted(at, 0.0), ResultWritten(at, "done", value), TaskEnded(at, "FINISHED", 0.0)]


def test_killed_again_and_again_in_mid_swarm_it_loses_nothing(tmp_path: Path) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    admin_keys, *node_keys = (KeyPair.generate() for _ in range(4))
    bootstrap = tmp_path / "bootstrap.json"
    nodes = [
        {"alias": f"node-{number}", "id": f"n{number}", "key": keys.public}
        for number, keys in enumerate(node_keys, 1)
    ]
    content = {"admin": {"email": "a@b", "key": admin_keys.public}, "cluster": {"name": "lab"}}
    bootstrap.write_text(json.dumps({**content, "nodes": nodes}))
    bootstrap.chmod(0o600)
    with ExitStack() as undo:
        process = undo.enter_context(
            Process(tmp_path / "m", *ANYWHERE, "--bootstrap", str(bootstrap))
        )
        file = process.start()
        depot = FileDepot(process.home.blobs)

        def train(assignment: Assignment) -> list[JournalEntry]:
            """The aggregator of each round overwrites the model of the one before."""
            entries = work(assignment)
            at = assignment.instance
            if at.alias == "aggregator":
                model = f"model {at.iteration}".encode() * 10_000
                ref = BlobRef(digest_of(model), len(model))
                running[int(assignment.node_id[-1]) - 1].blobs[ref.digest] = model
                entries.insert(1, GlobalWritten(at, "model", ref))
            return entries

        running = [
            undo.enter_context(
                FakeNode(file.nodes, file.public_key, alias=f"node-{n}", keys=keys, script=train)
            )
            for n, keys in enumerate(node_keys, 1)
        ]
        admin = undo.enter_context(Client(file.users, file.public_key, keys=admin_keys))
        for node in running:
            assert node.registered.wait(60)
        first = admin.ask(SendSwarm("lab", SPEC)).swarm_id
        admin.ask(StartSwarm(first))
        seen: list[bytes] = []
        cursor = 0
        for _ in range(6):
            time.sleep(rng.uniform(0.0, 0.15))
            page = admin.ask(ReadFeed(first, "results", after=cursor))
            seen += (item.value.data for item in page.items)
            cursor = page.cursor
            process.kill()
            process.start()
            model = admin.ask(SelectGlobal(first, "model")).value
            assert model is None or model.digest in depot
        info = admin.ask(WaitSwarm(first, 30.0), 60)
        assert (info.status, info.iteration) == ("COMPLETED", ROUNDS - 1), info
        page = admin.ask(ReadFeed(first, "results", limit=10_000))
        found = [item.value.data for item in page.items]
        # What was read before a kill is there afterwards, at the same place.
        assert found[: len(seen)] == seen
        assert sorted(found) == sorted(
            f"{instance}@{iteration}".encode()
            for iteration in range(ROUNDS)
            for instance in ("worker.0", "worker.1", "worker.2", "aggregator.0")
        )
        assert len(admin.ask(GetTasks(first)).tasks) == ROUNDS * 4
        # Of the models none is kept but the last.
        model = admin.ask(SelectGlobal(first, "model")).value
        with closing(sqlite3.connect(process.home.database)) as store:
            named = store.execute("SELECT digest FROM blob_references WHERE holder = ?", (first,))
            assert named.fetchall() == [(model.digest,)]
        # What was over before a kill is there after it: swarm, results, clusters, users.
        process.kill()
        process.start()
        assert admin.ask(GetSwarm(first)) == info
        assert admin.ask(ReadFeed(first, "results", limit=10_000)).items == page.items
        assert [cluster.name for cluster in admin.ask(ListClusters()).clusters] == ["lab"]
        # What was deleted before a kill stays deleted, and what is left keeps its place.
        assert admin.ask(DeleteResults(first, iteration=0)).count == 4
        process.kill()
        process.start()
        left = admin.ask(ReadFeed(first, "results", limit=10_000))
        assert left.items == tuple(item for item in page.items if item.iteration)
        assert left.cursor == page.cursor
        assert process.end()[0] == 0


def test_garbage_and_strangers_do_not_disturb(fresh: Process) -> None:
    file = fresh.start()
    ports = [int(address.rpartition(":")[2]) for address in (file.nodes, file.users, file.bulk)]
    stop = threading.Event()

    def disturb(port: int) -> None:
        rng = random.Random(port)
        while not stop.is_set():
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                try:
                    connection.sendall(rng.randbytes(rng.randrange(1, 3000)))
                    connection.settimeout(0.05)
                    connection.recv(100)
                except OSError:
                    continue  # cut off, as it should be

    threads = [threading.Thread(target=disturb, args=(port,)) for port in ports]
    for thread in threads:
        thread.start()
    try:
        with Client(file.users, file.public_key) as client:
            for _ in range(20):
                assert client.refusal(ListClusters()).code == "not-signed-in"
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert fresh.end()[0] == 0
