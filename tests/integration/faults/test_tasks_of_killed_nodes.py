"""A node that is killed leaves no task behind, whatever its tasks have done against that."""

from __future__ import annotations

import secrets
import sys
import time

import pytest

from manta.cli.local.cluster import CLUSTER
from manta.testing import wait_until
from manta.testing.clusters import client, running
from tests.support import isolated
from tests.support.escape.outside import alive
from tests.support.restarts import Restartable
from tests.support.swarms import One

CODE = """
    import os, signal, subprocess, sys, time
    MARK = {mark!r}
    def start(name):
        code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
        command = [sys.executable, "-c", code, MARK + name]
        subprocess.Popen(command, env={{}}, start_new_session=True)
    def main():
        start("-child")
        if os.fork() == 0:
            os.setsid()
            start("-grandchild")
            os._exit(0)
        with open(f"/proc/{{os.getppid()}}/stat") as file:
            runtime = int(file.read().rpartition(")")[2].split()[1])
        if {stops}:
            try:
                os.kill(runtime, signal.SIGSTOP)
            except PermissionError:
                pass
        time.sleep(600)
"""


@pytest.fixture(params=isolated.LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("stops", [False, True], ids=["", "runtime stopped"])
def test_a_killed_node_leaves_no_task_ten_seconds_after_its_restart(
    level: str, stops: bool
) -> None:
    class Isolated(Restartable):
        def command(self, log_name: str, arguments: list[str]) -> list[str]:
            command = super().command(log_name, arguments)
            if not log_name.startswith("node"):
                return command
            at = command.index("manta.node")
            return [sys.executable, isolated.__file__, level, *command[at:]]

    mark = f"mark-{secrets.token_hex(8)}"
    with running(Isolated, 1) as cluster, client(cluster) as api:
        assert isinstance(cluster, Isolated)
        swarm = api.deploy_swarm(CLUSTER, One(CODE.format(mark=mark, stops=stops)))
        wait_until(lambda: len(alive(mark)) == 2)
        cluster.kill("node-1")
        cluster.again("node-1")
        began = time.monotonic()
        wait_until(lambda: not alive(mark))
        assert time.monotonic() - began < 10
        api.stop_swarm(swarm)
        wait_until(lambda: api.get_swarm(swarm).status == "STOPPED")
        wait_until(lambda: not alive(mark))
