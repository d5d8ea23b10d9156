"""API objects that nobody closed."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from manta import AsyncUserAPI, Module, Swarm, Task, UserAPI
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing import wait_until
from manta.testing.clusters import client, running


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 1) as cluster, client(cluster):
        yield cluster


def session(cluster: LocalCluster) -> Session:
    key = cluster.manager_keys.public
    return Session(Target(HOST, cluster.user_port, "test", server_key=key), cluster.keys)


def held() -> tuple[int, int]:
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def collected(use: Callable[[], object]) -> None:
    use()
    gc.collect()


class Idle(Swarm):
    def execute(self) -> Task:
        return Task(Module("def main():\n    pass\n"))


def test_one_that_is_dropped_gives_back_what_it_held_and_warns(cluster: LocalCluster) -> None:
    before = held()

    def use() -> None:
        api = UserAPI.over(session(cluster))
        swarm = api.send_swarm(CLUSTER, Idle())
        api.set_global(swarm, "large", np.zeros(100_000))  # opens the way for large values
        assert held()[0] > before[0]

    for _ in range(3):
        with pytest.warns(ResourceWarning, match=rf"{HOST}:{cluster.user_port} was dropped"):
            collected(use)
    wait_until(lambda: held()[0] <= before[0] and held()[1] <= before[1])


def test_an_asynchronous_one_too(cluster: LocalCluster) -> None:
    before = held()

    async def use() -> None:
        assert await AsyncUserAPI.over(session(cluster)).list_clusters()

    with pytest.warns(ResourceWarning, match="use the object in a `with` block"):
        collected(lambda: asyncio.run(use()))
    wait_until(lambda: held()[0] <= before[0] and held()[1] <= before[1])


def test_one_that_is_closed_or_was_never_opened_warns_of_nothing(cluster: LocalCluster) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with UserAPI.over(session(cluster)) as api:
            api.list_clusters()
        del api
        UserAPI.over(session(cluster))
        gc.collect()


def test_a_stream_keeps_its_own_open(cluster: LocalCluster) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api = UserAPI.over(session(cluster))
        streams = [api.stream_clusters()]
        del api
        gc.collect()
        assert next(streams[0]).name == CLUSTER
    with pytest.warns(ResourceWarning):
        collected(streams.clear)


def test_a_program_that_ends_with_one_ends_at_once(cluster: LocalCluster) -> None:
    code = (
        "import sys; from manta import UserAPI\n"
        "from manta.apis.connect.session import Session\n"
        "from manta.apis.connect.profiles import Target\n"
        "from manta.transports.security.keys import KeyPair\n"
        f"target = Target({HOST!r}, {cluster.user_port}, 't', server_key=sys.argv[1])\n"
        "api = UserAPI.over(Session(target, KeyPair.generate()))\n"
        "try: api.list_clusters()\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    began = time.monotonic()
    command = [sys.executable, "-W", "error", "-c", code, cluster.manager_keys.public]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "NotAuthenticated"
    assert time.monotonic() - began < 15
