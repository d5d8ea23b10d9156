"""Each key of a node's configuration has its effect on a real node of a real manager.

Those of [network], [requirements], [datasets], [labels], of docker and of a scratch folder's size
are in the tests of joining, ways out, environments, nodes, containers and scratch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from manta.apis.errors import Unplaceable
from manta.node.capabilities import gpus
from manta.node.config import load
from manta.node.errors import LaunchError
from manta.node.runners.gpus import Gpu
from manta.node.state import hardware_id
from manta.protocol.node import GpuInfo
from tests.integration.node.conftest import Command, port
from tests.support.children import Child

CLUSTER = "lab"


def set_up_anew(lab, mode: str, alias: str) -> list[str]:
    """Enrol, forget everything on both sides, enrol again; both ids."""
    state = lab.state("edge")
    ids = []
    for _ in range(2):
        token = lab.api().create_node_token(CLUSTER)
        identity = {"secured_token": token, "id": mode, "alias": alias}
        with lab.start(lab.config("edge", identity=identity), state):
            ids.append(lab.wait_for(state, "connected").node_id)
        shutil.rmtree(state.path)
        lab.api().remove_node(ids[-1])  # a stranger's key does not get what it was
    return ids


def test_identity_id_is_what_a_node_is_known_by_when_it_is_set_up_anew(lab) -> None:
    first, second = set_up_anew(lab, "alias", "by-alias")
    assert first == second
    first, second = set_up_anew(lab, "random", "by-chance")
    assert first != second
    if hardware_id("edge"):
        first, second = set_up_anew(lab, "hardware", "by-machine")
        assert first == second


def test_reserves_of_cpu_and_memory_are_kept_from_tasks(lab) -> None:
    code = """
import os
from manta.light import World

def main():
    World().results.add("threads", int(os.environ["OMP_NUM_THREADS"]))
"""
    api = lab.api()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    threads = []
    for percent in (0, 100):
        with lab.node(1, resources={"reserve_cpu_percent": percent, "max_concurrent_tasks": 1}):
            ran = lab.run(api, lab.swarm(code))
            threads += [item.value for item in api.stream_results(ran)]
    assert threads == [os.cpu_count(), 1]

    with lab.node(1, resources={"reserve_memory_mb": total // 2**20 - 100}):
        ran = lab.run(api, lab.swarm(code, resources={"memory": "50MB"}))
        asking = lab.swarm(code, resources={"memory": "200MB"})
        with pytest.raises(Unplaceable, match=r"node-1 has 100\.\d MiB of memory, 190\.7 MiB are"):
            api.deploy_swarm(CLUSTER, asking)


def test_containers_gpu_enabled_shows_the_gpus_or_hides_them(lab, monkeypatch) -> None:
    one = Gpu(GpuInfo("A", 2**30, "GPU-1"), Path("/dev/null"), "GPU-1")
    monkeypatch.setattr(gpus, "find", lambda: gpus.Found((one,)))
    for enabled in (True, False):
        with lab.node(1, containers={"gpu_enabled": enabled}):
            assert lab.api().get_node("node-1").resources.gpu_available is enabled


def test_no_node_runs_tasks_as_plain_processes_unless_containers_allow_unsandboxed_says_so(
    lab, monkeypatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{lab.folder}/nothing.sock")
    monkeypatch.setenv("PATH", str(lab.folder))
    config = lab.config("node-1", containers={"runner": "auto"})
    config.path.write_text(config.path.read_text().replace("allow_unsandboxed = true", ""))
    monkeypatch.setattr("manta.node.isolation.landlock.available", lambda: 0)
    with pytest.raises(LaunchError, match="allow_unsandboxed is false, as it is unless it is set"):
        lab.start(load(config.path), lab.known(1))


class Foreground:
    """`manta_node start edge`, until it is connected, then Ctrl-C."""

    def __init__(self, lab, manta_node: Command) -> None:
        self._lab = lab
        self._manta_node = manta_node
        self.log = manta_node.home / "state" / "nodes" / "edge" / "node.log"
        where = ("--manager-host", "127.0.0.1", "--manager-port", port(lab.file.nodes))
        made = manta_node("config", "init", "edge", *where, "--allow-unsandboxed", "--id", "alias")
        assert made.returncode == 0, made.stderr
        self.config = manta_node.home / "nodes" / "edge.toml"
        self.text = self.config.read_text()
        self._token = lab.api().create_node_token(CLUSTER)

    def __call__(self, **log: str) -> str:
        """What it wrote on the console."""
        lines = "\n".join(f"{key} = {value}" for key, value in log.items())
        self.config.write_text(f"{self.text}\n[logging]\n{lines}\n")
        with Child(
            [sys.executable, "-m", "manta.node.command", "start", "edge"],
            stderr=subprocess.PIPE,
            text=True,
            env={**self._manta_node.environment, "MANTA_NODE_TOKEN": self._token},
        ) as process:
            state = self._lab.state(str(self.log.parent))
            self._lab.wait_for(state, "connected")
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(60) == 0, said
        return said


def test_logging(lab, manta_node: Command) -> None:
    start = Foreground(lab, manta_node)

    def logged() -> str:
        text = start.log.read_text()
        start.log.unlink()
        return text

    said = start()
    assert " INFO " in said
    assert "Connected to the manager" in said
    assert said == logged()
    assert start(log_to_console="false") == ""
    assert "Connected to the manager" in logged()
    assert " INFO " not in start(level='"WARNING"')
    assert " INFO " not in logged()
    for more in ({"level": '"DEBUG"'}, {"level": '"ERROR"', "debug_mode": "true"}):
        assert " DEBUG " in start(**more)
        assert " DEBUG " in logged()

    old = [start.log.with_name(f"node.log.{number}") for number in (1, 2, 3)]
    for path in (*old, start.log):
        path.write_text(f"{path.name}\n" * 1200)  # over 10 KB
    start(rotation='"10 KB"')
    names = sorted(path.name for path in start.log.parent.glob("node.log*"))
    assert names == ["node.log", *(path.name for path in old)], "three are kept"
    assert [path.read_text().split()[0] for path in old] == ["node.log", "node.log.1", "node.log.2"]
    assert "Connected to the manager" in start.log.read_text()
    assert start.log.stat().st_size <= 10_000
