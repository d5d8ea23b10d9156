"""Calls and streams that are given up: nothing of them is left, and nobody is warned of them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from manta import AsyncUserAPI, Module, Swarm, Task
from manta.apis import errors
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running

HELD = Module("import time\ndef main():\n    print('in')\n    time.sleep(1000)\n", name="held")


class Held(Swarm):
    def execute(self) -> Task:
        return Task(HELD)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def swarm(cluster: LocalCluster) -> Iterator[str]:
    with client(cluster) as api:
        deployed = api.deploy_swarm(CLUSTER, Held())
        next(api.stream_logs(deployed))
        api.set_global(deployed, "large", np.zeros(1_000_000))
        yield deployed.swarm_id
        api.stop_swarm(deployed, force=True)


def session(cluster: LocalCluster) -> Session:
    target = Target(HOST, cluster.user_port, "test", server_key=cluster.manager_keys.public)
    return Session(target, cluster.keys)


@asynccontextmanager
async def watched(cluster: LocalCluster) -> AsyncIterator[AsyncUserAPI]:
    """An API in a loop that must hear no complaint, nor keep a task or a future."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async with AsyncUserAPI.over(session(cluster)) as api:
        await api.list_clusters()
        yield api
        gc.collect()
        for _ in range(10):  # loops close a generator that nobody holds any more in a task
            await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        assert not api.connection.session._waiting
        link = api.connection.session._gateway
        assert link is not None
        assert not link._peer._asks, "the answer, when it comes, is nobody's"
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


Call = Callable[[AsyncUserAPI, str], Coroutine[Any, Any, Any]]


async def drained(stream: AsyncIterator[Any]) -> None:
    async for _ in stream:
        pass


CALLS: dict[str, Call] = {
    "wait_swarm": lambda api, swarm: api.wait_swarm(swarm),
    "results until the end": lambda api, swarm: api.get_swarm_results(swarm, wait=True),
    "stream_results": lambda api, swarm: drained(api.stream_results(swarm)),
    "stream_logs": lambda api, swarm: drained(api.stream_logs(swarm)),
    "stream_metrics": lambda api, swarm: drained(api.stream_metrics(swarm)),
    "stream_events": lambda api, swarm: drained(api.stream_events(swarm)),
    "stream_swarms": lambda api, _: drained(api.stream_swarms(follow=True)),
    "stream_clusters": lambda api, _: drained(api.stream_clusters(follow=True)),
    "stream_nodes": lambda api, _: drained(api.stream_nodes(CLUSTER, follow=True)),
    "stream_node_resources": lambda api, _: drained(api.stream_node_resources("node-1")),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_takes_its_time_is_given_up(cluster: LocalCluster, swarm: str, call: Call) -> None:
    async def main() -> None:
        async with watched(cluster) as api:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(call(api, swarm), 0.15)
            task = asyncio.create_task(call(api, swarm))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await api.get_swarm(swarm)).status == "ACTIVE"  # it serves on

    asyncio.run(main())


def test_a_call_cancelled_at_any_moment(cluster: LocalCluster, swarm: str) -> None:
    """Short calls, transfers of large values and a deployment, cut after 0 to 20 ms."""
    calls: list[Call] = [
        lambda api, _: api.list_nodes(CLUSTER),
        lambda api, swarm: api.select_global(swarm, "large"),
        lambda api, swarm: api.set_global(swarm, "other", np.ones(1_000_000)),
        lambda api, _: api.check_swarm(CLUSTER, Held()),
    ]

    async def main() -> None:
        async with watched(cluster) as api:
            for step in range(20):
                for call in calls:
                    task = asyncio.create_task(call(api, swarm))
                    await asyncio.sleep(step / 1000)
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
            value = await api.select_global(swarm, "large")
            assert value.nbytes == 8_000_000

    asyncio.run(main())


def test_a_stream_that_is_left_in_the_middle(cluster: LocalCluster, swarm: str) -> None:
    async def main() -> None:
        async with watched(cluster) as api:
            async for _ in api.stream_events(swarm):
                break
            stream = api.stream_logs(swarm)
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(main())


def test_closing_while_others_wait(cluster: LocalCluster, swarm: str) -> None:
    async def main() -> None:
        async with watched(cluster):
            pass
        api = AsyncUserAPI.over(session(cluster))
        waits = [asyncio.create_task(call(api, swarm)) for call in CALLS.values()]
        await asyncio.sleep(0.2)
        await api.close()
        for outcome in await asyncio.gather(*waits, return_exceptions=True):
            assert isinstance(outcome, errors.ApiClosed), outcome

    asyncio.run(main())


def test_two_loops_one_after_another_and_side_by_side(cluster: LocalCluster, swarm: str) -> None:
    """An API belongs to no loop."""
    api = AsyncUserAPI.over(session(cluster))

    async def ask() -> str:
        return (await api.get_swarm(swarm)).status

    async def follow() -> int:
        async for _ in api.stream_events(swarm):
            return 1
        return 0

    assert [asyncio.run(ask()) for _ in range(2)] == ["ACTIVE", "ACTIVE"]
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda work=work: found.append(asyncio.run(work())))
        for work in (ask, follow) * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["1", "1", "ACTIVE", "ACTIVE"]
    asyncio.run(api.close())


def test_one_api_in_many_threads(cluster: LocalCluster, swarm: str) -> None:
    with client(cluster) as api:
        found: list[str] = []

        def work() -> None:
            for _ in range(20):
                found.append(api.get_swarm(swarm).status)
            next(api.stream_events(swarm))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == ["ACTIVE"] * 160


def test_in_a_forked_process_it_says_so_and_a_new_one_works(
    cluster: LocalCluster, swarm: str, tmp_path: Any
) -> None:
    """What a fork takes along has no threads: to wait for its answers would be for ever."""
    secret = tmp_path / "key"
    cluster.keys.save(secret)
    code = f"""
        import os, sys
        from manta import UserAPI
        from manta.apis.errors import ApiClosed
        from manta.apis.connect.profiles import Target
        from manta.apis.connect.session import Session
        from manta.transports.security.keys import KeyPair
        def api():
            key = {cluster.manager_keys.public!r}
            target = Target({HOST!r}, {cluster.user_port}, "t", server_key=key)
            return UserAPI.over(Session(target, KeyPair.load({str(secret)!r})))
        parent = api()
        assert parent.get_swarm({swarm!r}).status == "ACTIVE"
        pid = os.fork()
        if not pid:
            try:
                parent.get_swarm({swarm!r})
            except ApiClosed as error:
                assert "fork" in str(error)
            else:
                os._exit(3)
            parent.close()
            with api() as own:
                assert own.get_swarm({swarm!r}).status == "ACTIVE"
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert parent.get_swarm({swarm!r}).status == "ACTIVE"
        parent.close()
        print("well")
        """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("well\n", "")
