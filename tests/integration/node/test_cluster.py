"""`manta_node cluster`: several nodes of one machine, each a daemon of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from manta.console.exit_codes import Exit
from manta.node.state import StateFolder
from tests.integration.node.conftest import Command
from tests.support.children import Child


def init(lab, manta_node: Command, *arguments: object, port: str = "") -> None:
    where = ("--manager-host", "127.0.0.1", "--manager-port", port or lab.file.nodes.split(":")[2])
    done = manta_node("config", "init", "edge", "--allow-unsandboxed", "--alias", "e", *where)
    assert done.returncode == 0, done.stderr
    path = manta_node.home / "nodes" / "edge.toml"
    shards = lab.folder / "shard{i}-of-{alias}.csv"
    path.write_text(path.read_text() + f'\n[datasets.mappings]\nshard = "{shards}"\n')


def records(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {record["name"]: record for record in json.loads(done.stdout)}


def test_three_nodes_of_one_configuration(lab, manta_node: Command) -> None:
    init(lab, manta_node)
    for i in range(2):
        (lab.folder / f"shard{i}-of-e-{i + 1}.csv").write_text("x" * (i + 1))
    few = lab.api().create_node_token("lab", uses=2)
    refused = manta_node("cluster", "start", 3, "--config", "edge", MANTA_NODE_TOKEN=few)
    assert refused.returncode == Exit.DENIED
    assert "lets 2 nodes in, and 3 have not enrolled yet" in refused.stderr
    assert "--uses 3" in refused.stderr

    token = lab.api().create_node_token("lab", uses=3)
    started = manta_node(
        "cluster", "start", 3, "--config", "edge", "--json", MANTA_NODE_TOKEN=token
    )
    # The third has no shard: it is told, and the others go on.
    assert started.returncode == Exit.LOCAL, started.stderr
    found = records(started)
    assert [record["state"] for record in found.values()] == ["connected", "connected", "stopped"]
    assert "shard2-of-e-3.csv, which does not exist" in found["edge-3"]["error"]
    nodes = {node.alias: node for node in lab.api().list_nodes("lab")}
    assert {"e-1", "e-2"} < set(nodes)
    assert len({nodes[alias].id for alias in ("e-1", "e-2")}) == 2
    assert [nodes[f"e-{i}"].datasets["shard"].size for i in (1, 2)] == [1, 2]

    # Once more, with the shard: those that run go on, the third comes by the rest of the token.
    (lab.folder / "shard2-of-e-3.csv").write_text("xxx")
    again = manta_node("cluster", "start", 3, "--config", "edge", MANTA_NODE_TOKEN=token)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("runs already") == 2
    assert "edge-3: runs (process" in again.stdout

    shown = manta_node("status", "edge")
    assert shown.returncode == 0
    assert [line.split()[:3] for line in shown.stdout.splitlines()[1:]] == [
        [f"edge-{i}", "connected", f"e-{i}"] for i in (1, 2, 3)
    ]
    logs = manta_node("logs", "edge", "-n", 0).stdout
    assert all(f"edge-{i} | " in logs for i in (1, 2, 3))

    # One is killed: the others are stopped, and its id, a stranger's by now, is left alone.
    state = StateFolder(manta_node.home / "state" / "nodes" / "edge-2")
    os.kill(found["edge-2"]["pid"], signal.SIGKILL)
    lab.wait_until(lambda: state.running_pid() is None)
    with Child([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        (state.path / "lock").write_text(f"{stranger.pid}\n")
        stopped = manta_node("cluster", "stop", "--json")
        assert stopped.returncode == 0
        assert [name for name, one in records(stopped).items() if one["stopped"]] == [
            "edge-1",
            "edge-3",
        ]
        assert stranger.poll() is None
        stranger.kill()
    assert manta_node("status", "edge").returncode == Exit.UNREACHABLE

    # A node of it by itself, and without the token.
    alone = manta_node("start", "edge-2", "--background", "--json")
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout)["node_id"] == nodes["e-2"].id
    assert "edge-2" in manta_node("cluster", "stop").stdout


def test_nodes_with_configurations_of_their_own(lab, manta_node: Command) -> None:
    port = lab.file.nodes.split(":")[2]
    for i in (1, 2):
        where = ("--manager-host", "127.0.0.1", "--manager-port", port, "--allow-unsandboxed")
        assert manta_node("config", "init", f"node-{i}", "--alias", f"own-{i}", *where).stdout
    missing = manta_node("cluster", 3)
    assert missing.returncode == Exit.NOT_FOUND
    assert "manta_node config init node-3" in missing.stderr
    token = lab.api().create_node_token("lab", uses=2)
    started = manta_node("cluster", 2, MANTA_NODE_TOKEN=token)
    assert started.returncode == 0, started.stdout + started.stderr
    assert {"own-1", "own-2"} < {node.alias for node in lab.api().list_nodes("lab")}
    shared = manta_node("cluster", "start", 2, "--config", "node")
    assert shared.returncode == Exit.NOT_FOUND

    # A node of the cluster's name is shown with them.
    where = ("--manager-host", "127.0.0.1", "--manager-port", port, "--allow-unsandboxed")
    assert manta_node("config", "init", "node", "--alias", "own", "--id", "random", *where).stdout
    only = lab.api().create_node_token("lab")
    started = manta_node("start", "node", "--background", MANTA_NODE_TOKEN=only)
    assert started.returncode == 0, started.stderr
    shown = json.loads(manta_node("status", "node", "--json").stdout)
    assert [record["name"] for record in shown] == ["node", "node-1", "node-2"]
    assert manta_node("stop", "node").returncode == 0
    assert manta_node("cluster", "stop", "--config", "node").stdout.count("was stopped") == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((0,), Exit.USAGE, "0 is not in the range 1<=x<=256"),
        (("start", "many"), Exit.USAGE, "not a valid integer range"),
        (("start", 2, "--config", "nobody"), Exit.NOT_FOUND, "config init nobody"),
        (("stat", 2), Exit.USAGE, "Did you mean 'start'?"),
        (("stop", "--config", "nobody"), Exit.NOT_FOUND, "none was ever started"),
        (("stop",), Exit.OK, "No node of a cluster is running."),
    ],
)
def test_wrong_usage(
    manta_node: Command, arguments: tuple[object, ...], code: int, words: str
) -> None:
    done = manta_node("cluster", *arguments)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
