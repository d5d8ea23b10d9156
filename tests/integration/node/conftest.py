"""A real manager and real nodes in this process, on real sockets, and a user's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.manager.service import Manager, Settings
from manta.node.config import NodeConfig, parse, toml_value
from manta.node.service import Node
from manta.node.state import StateFolder, Status
from manta.testing import wait_until
from manta.testing.clusters import RUNNER
from manta.transports.security.keys import KeyPair
from tests.support.ports import free_ports

HOST = "127.0.0.1"
CLUSTER = "lab"


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


class Lab:
    """What a test needs of a cluster."""

    def __init__(self, folder: Path, undo: ExitStack, nodes: int) -> None:
        self.folder = folder
        self.undo = undo
        self.admin = KeyPair.generate()
        self.keys = [KeyPair.generate() for _ in range(nodes)]
        self.finished: list[tuple[int, str]] = []
        self.nodes: list[Node] = []
        # Where it is to be found again, nobody else is given a port meanwhile.
        of_nodes, users, bulk = (f"tcp://{HOST}:{port}" for port in free_ports(3))
        home = folder / "manager"
        self._settings = Settings(home, of_nodes, users, bulk, bootstrap=self._bootstrap())
        self.start_manager()

    def _bootstrap(self) -> Path:
        path = self.folder / "bootstrap.json"
        nodes = [{"alias": f"node-{i}", "key": k.public} for i, k in enumerate(self.keys, 1)]
        admin = {"email": "me@localhost", "key": self.admin.public}
        path.write_text(json.dumps({"admin": admin, "cluster": {"name": CLUSTER}, "nodes": nodes}))
        path.chmod(0o600)
        return path

    # The manager.

    def start_manager(self) -> None:
        self._manager_undo = ExitStack()
        self.manager = self._manager_undo.enter_context(Manager(self._settings))
        file = self.manager.file
        self._settings = Settings(self._settings.home, file.nodes, file.users, file.bulk)
        self.file = file

    def stop_manager(self) -> None:
        self._manager_undo.close()

    def api(self, keys: KeyPair | None = None) -> UserAPI:
        target = Target(HOST, port(self.file.users), "test", server_key=self.file.public_key)
        return self.undo.enter_context(UserAPI.over(Session(target, keys or self.admin)))

    # Nodes.

    def config(self, name: str, **sections: dict[str, Any]) -> NodeConfig:
        sections.setdefault("identity", {}).setdefault("alias", name)
        network = sections.setdefault("network", {})
        network.setdefault("manager_host", HOST)
        network.setdefault("manager_port", port(self.file.nodes))
        containers = sections.setdefault("containers", {})
        containers.setdefault("allow_unsandboxed", True)
        containers.setdefault("runner", RUNNER)
        lines: list[str] = []
        for section, values in sections.items():
            lines.append(f"[{section}]")
            lines += [f"{key} = {toml_value(value)}" for key, value in values.items()]
        path = self.folder / f"{name}.toml"
        path.write_text("\n".join(lines).replace("[datasets]", "[datasets.mappings]"))
        return parse(path.read_text(), path, {})

    def state(self, name: str) -> StateFolder:
        return StateFolder(self.folder / name)

    def known(self, number: int) -> StateFolder:
        """The state folder of a node that the manager knows from its start."""
        state = self.state(f"node-{number}")
        if not state.key_file.exists():
            self.keys[number - 1].save(state.key_file)
            state.identity_file.write_text(json.dumps({"manager_key": self.file.public_key}))
            state.identity_file.chmod(0o600)
        return state

    def start(self, config: NodeConfig, state: StateFolder) -> Node:
        def finish(code: int, sentence: str) -> None:
            self.finished.append((code, sentence))

        node = self.undo.enter_context(Node(config, state.path, on_finish=finish))
        self.nodes.append(node)
        return node

    def node(self, number: int = 1, **sections: dict[str, Any]) -> Node:
        """Start `node-NUMBER` and wait until it is connected."""
        state = self.known(number)
        node = self.start(self.config(f"node-{number}", **sections), state)
        self.wait_for(state, "connected")
        return node

    def wait_for(self, state: StateFolder, *states: str) -> Status:
        def reached() -> bool:
            status = state.read_status()
            return status is not None and status.state in states

        wait_until(reached, what=state.read_status)
        status = state.read_status()
        assert status is not None
        return status

    # Swarms.

    @staticmethod
    def swarm(code: str, **arguments: Any) -> Swarm:
        """Of one task."""
        iterations = arguments.pop("iterations", None)
        datasets = arguments.pop("datasets", None)

        class Single(Swarm):
            def __init__(self) -> None:
                super().__init__(max_iteration=iterations)

            def execute(self) -> Task:
                return Task(Module(code, name="task", datasets=datasets), **arguments)

        return Single()

    def run(self, api: UserAPI, swarm: Swarm, status: str = "COMPLETED") -> str:
        """Deploy it and wait for its end; returns the id."""
        deployed = api.deploy_swarm(CLUSTER, swarm)
        ended = api.wait_swarm(deployed, timeout=60)
        assert ended.status == status, ended
        return deployed.swarm_id

    wait_until = staticmethod(wait_until)


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Its manager knows one node from the start: it places nothing until all of those are back."""
    with ExitStack() as undo:
        lab = Lab(tmp_path_factory.mktemp("lab"), undo, getattr(request, "param", 1))
        undo.callback(lab.stop_manager)
        yield lab


# The command.


class Command:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "MANTA_HOME": str(home)}

    def __call__(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "manta.node.command", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={**self.environment, **environment},
        )


@pytest.fixture
def manta_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Command]:
    command = Command(tmp_path_factory.mktemp("home"))
    yield command
    command("stop", "edge")
    command("cluster", "stop")
