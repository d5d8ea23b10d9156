"""Swarms on nodes whose tasks run in sandboxes, or confined, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manta import Module, Swarm, Task
from manta.apis.errors import Unplaceable
from manta.protocol.isolation import BWRAP
from tests.integration.node.conftest import Lab, lab
from tests.support.ordinary import NOBODY, as_ordinary_user

__all__ = ["lab"]

SWARM = """
from manta import Module, Swarm, Task
CODE = '''
import os
import numpy as np
from manta.light import Local, World
def main():
    world = World()
    rank, other = world.rank, f"node-{2 - world.rank}"
    total = world.all_reduce(np.full(200_000, rank + 1.0))  # in memory that the plane shares
    world.send_to_node(other, "letter", np.full(100_000, float(rank)))
    letter = world.receive_from_node(other, "letter")
    pids = [name for name in os.listdir("/proc") if name.isdecimal()]
    try:
        os.listdir(os.path.dirname(os.path.realpath(os.environ["HOME"])))
        is_alone = False
    except PermissionError:
        is_alone = True
    if os.path.exists("/manta/module"):
        is_alone = len(pids) == 3
    return [float(total[0]), float(letter[-1]), Local().read_file_lines("data"), is_alone,
            os.path.exists("/manta/module"), os.getuid()]
'''
class Both(Swarm):
    def execute(self):
        return Task(Module(CODE, name="code", datasets="data"), replicas=2)
"""


@pytest.mark.parametrize("user", ["this", "ordinary"])
def test_instances_compute_together(level: str, tmp_path: Path, user: str) -> None:
    pytest.importorskip("numpy")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "swarm.py").write_text(SWARM)
    (scratch / "far.csv").write_text("1\n2\n")
    (scratch / "near.csv").symlink_to("far.csv")
    script = (
        "import json, sys\n"
        "from manta.cli.local.cluster import CLUSTER, LocalCluster\n"
        "from manta.cli.loading import load_swarm\n"
        "from manta.console.interrupts import Interrupts\n"
        "with Interrupts() as interrupts:\n"
        "    cluster = LocalCluster(2, {'data': sys.argv[2]}, interrupts, sys.argv[3])\n"
        "    try:\n"
        "        cluster.start()\n"
        "        with cluster.connect() as api:\n"
        "            cluster.wait_for_nodes(api, lambda _: None)\n"
        "            ran = api.wait_swarm(api.deploy_swarm(CLUSTER, load_swarm(sys.argv[1], {})))\n"
        "            tasks = api.get_tasks(ran)\n"
        "            print(json.dumps([ran.status, ran.reason, [t.output for t in tasks]]))\n"
        "    finally:\n"
        "        cluster.stop(keep=False)\n"
    )
    arguments = [str(scratch / "swarm.py"), str(scratch / "near.csv"), level]
    command = [sys.executable, "-c", script, *arguments]
    if user == "ordinary":
        command = as_ordinary_user(command, scratch)
    done = subprocess.run(
        command,
        cwd=scratch,
        env={
            **os.environ,
            "HOME": str(scratch),
            "MANTA_HOME": str(scratch / "manta"),
            "TMPDIR": str(scratch),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    status, reason, outputs = json.loads(done.stdout)
    assert status == "COMPLETED", reason
    uid = NOBODY if user == "ordinary" and os.getuid() == 0 else os.getuid()
    sees = [["1", "2"], True, level == BWRAP, uid]
    assert outputs == [[3.0, other, *sees] for other in (1.0, 0.0)]


class Asking(Swarm):
    def __init__(self, level: str) -> None:
        super().__init__()
        self._level = level

    def execute(self) -> Task:
        code = "def main():\n    return 1\n"
        return Task(Module(code, name="task", resources={"isolation": self._level}))


def test_a_node_says_at_which_level_it_is_and_swarms_may_ask_for_one(level: str, lab: Lab) -> None:
    lab.node(1, containers={"runner": level, "isolation": level, "allow_unsandboxed": False})
    api = lab.api()
    has = api.get_node("node-1").platform_info
    assert (has.runners, has.isolation) == ((level,), level)
    assert lab.wait_for(lab.known(1), "connected").isolation == level
    swarm_id = lab.run(api, Asking("landlock"))
    [placed] = api.explain_swarm(swarm_id).placements
    assert placed.isolation == level
    why = (
        f"node-1 isolates it by {level!r}, 'docker' is asked for; ask for less, or let a node have"
    )
    assert why in api.check_swarm("lab", Asking("docker")).problems[0]
    with pytest.raises(Unplaceable, match=f"isolates it by {level!r}"):
        api.deploy_swarm("lab", Asking("docker"))
