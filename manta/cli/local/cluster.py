"""A manager and nodes as processes of this machine, for `manta run`, `manta up` and Python.

Everything is in one temporary folder: keys that are known from the start, so that nobody has to
sign in or enrol; configurations; state; logs. The sockets are opened here and inherited by the
manager, so that nodes and client can connect before it is ready.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from manta.apis import checks
from manta.apis.errors import ApiClosed, ClusterDied, DatasetMissing, InvalidArgument
from manta.cli.local import caretaker
from manta.console.commands import check_utf8
from manta.console.extras import missing
from manta.console.interrupts import Interrupts
from manta.console.modules import module_command
from manta.light.runtime.processes import kill_tree
from manta.protocol.isolation import AUTO, LIMITS
from manta.transports.errors import KeyFileError
from manta.transports.files import read_end
from manta.transports.security.keys import KeyPair

if TYPE_CHECKING:
    from manta.apis.async_user_api import AsyncUserAPI
    from manta.apis.connect.session import Session
    from manta.apis.user_api import UserAPI

CLUSTER = "local"
HOST = "127.0.0.1"
MOST_NODES = 1000
CONCURRENT_TASKS = 8
"""Per node, so that several tasks of an iteration can run at once."""
STOP_GRACE = 8.0
"""Seconds after which a process that was asked to stop is killed."""
READY = 30.0
"""Seconds within which manager and nodes must be connected."""
TAIL = 15
"""Lines of its log that are shown when a process dies."""


@dataclass
class Child:
    """A manager or node process."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ended: threading.Event = field(default_factory=threading.Event)

    def tail(self) -> list[str]:
        text = read_end(self.log).decode(errors="replace") if self.log.exists() else ""
        return text.splitlines()[-TAIL:]

    def describe_end(self) -> str:
        """Says how it ended, with the last lines of its log."""
        code = self.process.returncode
        how = f"exit code {code}"
        if code is not None and code < 0:
            how = f"signal {signal.Signals(-code).name}"
        last = "\n".join(f"  {line}" for line in self.tail()) or "  (it wrote nothing)"
        return f"The process of {self.name} ended ({how}). Its last lines:\n{last}"


class LocalCluster:
    """A manager and `nodes` nodes on this machine, as a context manager that gives a UserAPI, or,
    by `async with`, an AsyncUserAPI:

        with LocalCluster(nodes=4, datasets={"digits": "shards/node{i}.npz"}) as api:
            api.wait_swarm(api.deploy_swarm(MySwarm()))

    They are real processes, as `manta up` starts them, and gone at the end, whatever happens. The
    nodes have the aliases node-1 to node-N. `datasets` are paths by name; in a path, `{i}` is the
    number of the node from 0 on, and `{alias}` its alias. The cluster's name is "local"; swarms
    without one are deployed there. Raises InvalidArgument, DatasetMissing, and ClusterDied if a
    process ends while they start.
    """

    # `start` returns at once, since connecting waits; `stop` leaves nothing behind.

    def __init__(
        self,
        nodes: int = 1,
        datasets: Mapping[str, str | os.PathLike[str]] | None = None,
        interrupts: Interrupts | None = None,
        runner: str = AUTO,
        *,
        keys: KeyPair | None = None,
        home: Path | None = None,
        links: str = "local",
    ) -> None:
        """`runner`: a level of isolation, or "auto": the strongest that works here without images.
        `keys` are the user's; `home` is where `manta up` keeps its state; `links` between nodes are
        "local" or "sealed" (peers.links). `interrupts` are a command's: in other programs, a signal
        is what it is to them."""
        nodes = checks.integer("LocalCluster's nodes", nodes, 0, MOST_NODES)
        links = checks.choice("LocalCluster's links", links, ("local", "sealed"))
        if interrupts is None:
            interrupts = Interrupts()
            interrupts.finish()
        self.aliases = [f"node-{i + 1}" for i in range(nodes)]
        self.keys = keys or KeyPair.generate()
        self.manager_keys = KeyPair.generate()
        self.user_port = 0
        self.note = ""
        """Why tasks are not isolated, though nobody has asked for that."""
        self.children: list[Child] = []
        self._datasets = _patterns({} if datasets is None else datasets)
        self._api: UserAPI | None = None
        self._async_api: AsyncUserAPI | None = None
        self._runner = runner
        self._links = links
        self._interrupts = interrupts
        self._lock = threading.Lock()
        self._stopping = False
        self._dead: list[Child] = []
        self._on_death: Callable[[Child], None] | None = None
        self._watchers: list[threading.Thread] = []
        with interrupts.held():
            # The path of a Unix socket has at most 107 bytes; a node's is 40 longer than this one.
            parent = tempfile.gettempdir()
            parent = parent if len(os.fsencode(parent)) <= 60 else "/tmp"
            self.folder = Path(parent).resolve() / f"manta-{secrets.token_hex(6)}"
            # First of all, so that the folder is removed even if this process is killed now.
            self._caretaker = subprocess.Popen(
                module_command(caretaker.__name__, str(self.folder), str(home or "")),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                self.folder.mkdir(mode=0o700)
            except OSError:
                self._dismiss_caretaker()  # the existing folder is not ours
                raise
        # Nobody else has this end: it shows daemons that we are gone, also with the caretaker.
        self._life, self._lives = socket.socketpair()

    def _dismiss_caretaker(self) -> None:
        self._caretaker.communicate(caretaker.DONE)

    @property
    def log_folder(self) -> Path:
        """Where each process writes its log."""
        return self.folder / "logs"

    def start(self) -> None:
        """Starts all processes. Raises DatasetMissing, ClusterDied."""
        try:
            self._start()
        except (OSError, KeyFileError) as error:
            raise ClusterDied(
                f"Manager and nodes could not be started from {self.folder}: {error}."
            ) from error

    def _start(self) -> None:
        check_installed()
        if self._runner == AUTO:
            self._runner, self.note = _strongest(self.folder)
        mappings = [dataset_paths(self._datasets, i, alias) for i, alias in enumerate(self.aliases)]
        self.log_folder.mkdir()
        home = self.folder / "manager"
        self.manager_keys.save(home / "manager.key")
        node_keys = {alias: KeyPair.generate() for alias in self.aliases}
        listeners = [socket.create_server((HOST, 0), backlog=512) for _ in range(3)]
        try:
            ports = [listener.getsockname()[1] for listener in listeners]
            self.user_port = ports[1]
            bootstrap = self.folder / "bootstrap.json"
            _write_private(
                bootstrap,
                json.dumps(
                    {
                        "admin": {"email": "user@localhost", "key": self.keys.public},
                        "cluster": {"name": CLUSTER},
                        # The alias is the id, so that what a node's id seeds is the same in
                        # every run.
                        "nodes": [
                            {"id": alias, "alias": alias, "key": keys.public}
                            for alias, keys in node_keys.items()
                        ],
                    }
                ),
            )
            addresses = {
                f"--{name}": f"tcp://{HOST}:{port}"
                for name, port in zip(("nodes", "users", "bulk"), ports, strict=True)
            }
            fds = [listener.fileno() for listener in listeners]
            self._spawn(
                "the manager",
                "manager",
                ["manta.manager", "--home", str(home)]
                + [word for option in addresses.items() for word in option]
                + ["--fds", ",".join(map(str, fds)), "--bootstrap", str(bootstrap)],
                fds,
            )
        finally:
            for listener in listeners:
                listener.close()
        for alias, mapping in zip(self.aliases, mappings, strict=True):
            state = self.folder / "state" / alias
            node_keys[alias].save(state / "node.key")
            _write_private(
                state / "identity.json",
                json.dumps(
                    {"node_id": "", "cluster_id": "", "manager_key": self.manager_keys.public}
                ),
            )
            config = self.folder / f"{alias}.toml"
            text = node_config(alias, ports[0], mapping, self._runner, self._links)
            config.write_text(text, "utf-8")
            self._spawn(
                alias, alias, ["manta.node", "--config", str(config), "--state", str(state)]
            )

    def __enter__(self) -> UserAPI:
        try:
            self.start()
            self._api = self.connect()
            self.wait_for_nodes(self._api, lambda _: None)
        except BaseException:
            self.__exit__()
            raise
        return self._api

    def __exit__(self, *_: object) -> None:
        try:
            if self._api is not None:
                self._api.close()
        finally:
            self._api = None
            self.stop(keep=False)

    async def __aenter__(self) -> AsyncUserAPI:
        import asyncio

        from manta.apis.async_user_api import AsyncUserAPI

        await asyncio.to_thread(self.__enter__)
        self._async_api = AsyncUserAPI.over(self._session())
        return self._async_api

    async def __aexit__(self, *_: object) -> None:
        import asyncio

        try:
            if self._async_api is not None:
                await self._async_api.close()
        finally:
            self._async_api = None
            await asyncio.to_thread(self.__exit__)

    def connect(self) -> UserAPI:
        """Opens the SDK, signed in with this cluster's user key."""
        from manta.apis.user_api import UserAPI

        return UserAPI.over(self._session())

    def _session(self) -> Session:
        from manta.apis.connect.profiles import Target
        from manta.apis.connect.session import Session

        key = self.manager_keys.public
        return Session(Target(HOST, self.user_port, "local", server_key=key), self.keys, CLUSTER)

    def wait_for_nodes(self, api: UserAPI, show: Callable[[int], None]) -> None:
        """Waits until all nodes are connected, and shows how many are. Raises ClusterDied.

        Closes the API when a process ends meanwhile.
        """
        self.watch(lambda _: api.close())
        try:
            self._wait_for_nodes(api, show)
        except ApiClosed:
            raise ClusterDied(self.dead[0].describe_end()) from None
        finally:
            with self._lock:
                self._on_death = None

    def _wait_for_nodes(self, api: UserAPI, show: Callable[[int], None]) -> None:
        from manta.apis.sync.connection import LONG_POLL
        from manta.protocol.clusters import Nodes, WatchNodes

        deadline = time.monotonic() + READY
        missing, revision = set(self.aliases), ""
        while missing:
            left = max(0.0, deadline - time.monotonic())
            wait = min(left, LONG_POLL)
            request = WatchNodes(CLUSTER, revision, wait)
            page = api.connection.ask(request, Nodes, again=True, wait=wait)
            revision = page.revision
            for node in page.nodes:
                if node.status == "CONNECTED":
                    missing.discard(node.alias)
                elif node.alias in self.aliases:
                    missing.add(node.alias)
            show(len(self.aliases) - len(missing))
            if missing and not left:
                late = min(missing)
                child = next(child for child in self.children if child.name == late)
                raise ClusterDied(
                    f"{', '.join(sorted(missing))} did not connect within {READY:g} s. "
                    f"The last lines of {late}:\n" + "\n".join(child.tail())
                )

    def _spawn(
        self, name: str, log_name: str, arguments: list[str], fds: list[int] | None = None
    ) -> None:
        log = self.log_folder / f"{log_name}.log"
        environment = {key: value for key, value in os.environ.items() if key[:6] != "MANTA_"}
        environment["MANTA_HOME"] = str(self.folder)
        with self._interrupts.held(), open(log, "ab") as output:
            process = subprocess.Popen(
                self.command(log_name, [*arguments, "--log", str(log), "--while-stdin"]),
                stdin=self._lives.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=fds or (),
                env=environment,
                # Ctrl-C must reach only this process, which then stops the others in order.
                start_new_session=True,
            )
            child = Child(name, process, log)
            self.children.append(child)
            thread = threading.Thread(target=self._watch, args=[child], name=f"watch-{name}")
            thread.start()
            self._watchers.append(thread)

    def command(self, log_name: str, arguments: list[str]) -> list[str]:
        """Returns the command line of a daemon."""
        return module_command(*arguments)

    def _watch(self, child: Child) -> None:
        child.process.wait()
        child.ended.set()
        with self._lock:
            self._dead.append(child)
            on_death = None if self._stopping else self._on_death
        if on_death is not None:
            on_death(child)

    def watch(self, on_death: Callable[[Child], None]) -> None:
        """Calls `on_death`, from any thread, when a process ends unexpectedly."""
        with self._lock:
            self._on_death = on_death
            dead = list(self._dead)
        for child in dead:
            on_death(child)

    @property
    def dead(self) -> list[Child]:
        """The processes that have ended."""
        with self._lock:
            return list(self._dead)

    def stop(self, *, keep: bool) -> None:
        """Ends all processes, if necessary by force, and removes the folder unless `keep`."""
        with self._lock:
            self._stopping = True
        deadline = time.monotonic() + STOP_GRACE
        # The manager last: a node that cannot say goodbye takes a second longer.
        for children in (self.children[1:], self.children[:1]):
            for child in children:
                if not child.ended.is_set():
                    child.process.terminate()
            for child in children:
                while not child.ended.wait(0.2):
                    if self._interrupts.insisted or time.monotonic() > deadline:
                        kill_tree({child.process.pid})
        for thread in self._watchers:
            thread.join()
        self._life.close()
        self._lives.close()
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._dismiss_caretaker()


def node_config(
    alias: str,
    port: int,
    datasets: Mapping[str, Path],
    runner: str = LIMITS,
    links: str = "local",
) -> str:
    """Returns the TOML configuration of a node."""
    mappings = "".join(
        f"{_quoted(name)} = {_quoted(str(path))}\n" for name, path in datasets.items()
    )
    return f"""\
[identity]
alias = {_quoted(alias)}
id = "alias"
[network]
manager_host = {_quoted(HOST)}
manager_port = {port}
[peers]
listen = "{HOST}:0"
links = {_quoted(links)}
[resources]
max_concurrent_tasks = {CONCURRENT_TASKS}
[containers]
runner = {_quoted(runner)}
allow_unsandboxed = true
[datasets.mappings]
{mappings}"""


def _patterns(datasets: object) -> dict[str, str]:
    """Raises InvalidArgument."""
    if not isinstance(datasets, Mapping):
        raise InvalidArgument(
            f"LocalCluster's datasets are {checks.shown(datasets)}: give a dict of paths by name."
        )
    found = dict[str, str]()
    for name, path in datasets.items():
        where = f"The path of LocalCluster's dataset {checks.shown(name)}"
        path = os.fspath(path) if isinstance(path, os.PathLike) else path
        found[checks.name("The name of a dataset of LocalCluster", name)] = checks.text(where, path)
    return found


def _strongest(folder: Path) -> tuple[str, str]:
    """At which level nodes isolate their tasks, and a note if at none. Containers need images with
    all that modules import: those are asked for by name."""
    from manta.node.runners.selection import local

    found = local([Path.home(), folder])
    note = f"Tasks run as plain processes of this user: {found.why}."
    return found.level, note if found.level == LIMITS else ""


def _quoted(text: str) -> str:
    """Quotes a TOML string, as JSON does; `${` would be a variable."""
    return json.dumps(text).replace("\x7f", "\\u007f").replace("${", "$${")


def check_installed() -> None:
    """Checks that a manager and nodes can run here. Raises ClusterDied."""
    if lacking := missing("node", "manager"):
        raise ClusterDied(
            f"A cluster on this machine needs {', '.join(lacking)}, which is not "
            "installed: pip install 'manta-swarm[node,manager]'."
        )


def dataset_paths(datasets: Mapping[str, str], index: int, alias: str) -> dict[str, Path]:
    """Returns what node number `index` maps. Raises DatasetMissing."""
    paths = {}
    for name, pattern in datasets.items():
        text = pattern.replace("{i}", str(index)).replace("{alias}", alias)
        path = Path(os.path.abspath(os.path.expanduser(text)))
        if not path.exists():
            remedy = "correct the path"
            if "{i}" in pattern and index:
                remedy = f"{{i}} counts from 0 to {index}, so give fewer --nodes, or make the file"
            raise DatasetMissing(f"The dataset {name!r} of {alias} is not there: {path}; {remedy}.")
        check_utf8(str(path), "--dataset", "map a link to it, in another folder")
        paths[name] = path
    return paths


def _write_private(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write(text)
