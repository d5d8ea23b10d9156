"""A client that stands still for longer than its patience, by Ctrl-Z or asleep, goes on."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta import UserAPI
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running
from manta.transports.security.keys import write_private
from tests.support.children import Child

IMPATIENT = """
import sys
import manta.apis.aio.connection as asynchronous
import manta.apis.sync.connection as synchronous
for module in (asynchronous, synchronous):
    module.PATIENCE, module.ANSWER, module.LONG_POLL = 8.0, 4.0, 1.0
"""
"""Stands still for longer than these within the time of a test, and a busy machine keeps them."""
SWARM = """
from manta import Module, Swarm, Task

class Rounds(Swarm):
    def __init__(self, rounds: int = 20) -> None:
        super().__init__(max_iteration=rounds)
        self.task = Task(Module('''
import time
from manta.light import World
def main():
    time.sleep(0.8)
    print("line", World().iteration)
    World().results.add("round", World().iteration)
'''), method="any")
"""
FOLLOWING = (
    IMPATIENT
    + """
from manta import UserAPI
with UserAPI() as api:
    swarm = api.deploy_swarm(sys.argv[1], __import__("rounds").Rounds())
    print(swarm.swarm_id, flush=True)
    for result in api.stream_results(swarm):
        print(result.value, flush=True)
    print(api.wait_swarm(swarm).status, len(api.collect_logs(swarm)), flush=True)
"""
)
FOLLOWING_ASYNC = (
    IMPATIENT
    + """
import asyncio
from manta import AsyncUserAPI
async def main():
    async with AsyncUserAPI() as api:
        swarm = await api.deploy_swarm(sys.argv[1], __import__("rounds").Rounds())
        print(swarm.swarm_id, flush=True)
        async for result in api.stream_results(swarm):
            print(result.value, flush=True)
        ended = await api.wait_swarm(swarm)
        print(ended.status, len(await api.collect_logs(swarm)), flush=True)
asyncio.run(main())
"""
)
COMMAND = (
    IMPATIENT
    + """
from manta.__main__ import main
sys.argv = ["manta", *sys.argv[1:]]
main()
"""
)


class Place:
    def __init__(self, folder: Path, cluster: LocalCluster, api: UserAPI) -> None:
        self.folder = folder
        self.api = api
        profile = {
            "host": HOST,
            "port": cluster.user_port,
            "server_key": cluster.manager_keys.public,
        }
        write_private(folder / "home" / "profiles" / "default.json", json.dumps(profile))
        cluster.keys.save(folder / "home" / "keys" / "default.key")
        (folder / "rounds.py").write_text(SWARM)

    def start(self, code: str, *arguments: str) -> Child[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
        return Child(
            [sys.executable, "-c", code, *arguments],
            env={**kept, "MANTA_HOME": str(self.folder / "home"), "PYTHONUNBUFFERED": "1"},
            cwd=self.folder,
            stdout=-1,
            stderr=-1,
            text=True,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with running(LocalCluster, 1) as cluster, client(cluster) as api:
        api.list_clusters()  # threads that a first use starts belong to all tests
        yield Place(tmp_path_factory.mktemp("place"), cluster, api)


@pytest.mark.parametrize("code", [FOLLOWING, FOLLOWING_ASYNC], ids=["sync", "async"])
def test_streams_and_waits_go_on(place: Place, code: str) -> None:
    with place.start(code, CLUSTER) as child:
        assert child.stdout is not None
        swarm = child.stdout.readline().strip()
        assert child.stdout.readline() == "0\n"
        child.send_signal(signal.SIGSTOP)
        # Longer than silence on a link, and than the client's patience.
        wait_until(lambda: place.api.get_swarm(swarm).iteration >= 15)
        child.send_signal(signal.SIGCONT)
        said = child.stdout.read()  # with what came along with the lines before
        _, error = child.communicate(timeout=60)
        assert (child.returncode, error) == (0, "")
    assert said.split() == [*map(str, range(1, 20)), "COMPLETED", "20"]


def test_a_run_of_its_own_goes_on(place: Place) -> None:
    with place.start(COMMAND, "run", "rounds.py", "-p", "rounds=15") as child:
        assert child.stdout is not None
        lines = [child.stdout.readline()]
        while "line 0" not in lines[-1]:
            lines.append(child.stdout.readline())
            assert lines[-1], lines
        child.send_signal(signal.SIGSTOP)
        time.sleep(11)  # its cluster is its own: nobody else can see how far it is
        child.send_signal(signal.SIGCONT)
        said, error = child.communicate(timeout=60)
        assert (child.returncode, error) == (0, "")
    assert "COMPLETED: ran 15 iterations" in said
    for number in range(1, 15):
        assert f"line {number}\n" in said
