"""Processes are killed, ended and frozen at random: what swarms did is neither lost nor doubled."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from manta import Swarm, UserAPI
from manta.apis.errors import NoAnswer
from manta.apis.overviews import SwarmOverview
from manta.cli.local.cluster import CLUSTER
from manta.testing.clusters import client, running, wait_for_nodes
from tests.support.restarts import Restartable
from tests.support.swarms import One

FULL = bool(os.environ.get("MANTA_FULL"))
FAULTS = 200 if FULL else 10
"""In full with MANTA_FULL=1."""
SEED = int(os.environ.get("MANTA_SEED") or random.randrange(2**32))
NODES = 3
ROUNDS = 12
EACH = [(iteration, rank) for iteration in range(ROUNDS) for rank in range(NODES)]
TASK = {"rounds": ROUNDS, "replicas": NODES, "retries": 100}  # a round that is killed has failed


def small() -> Swarm:
    """One global that all write in turn, results, a collective."""
    return One(
        """
        import time
        from manta.light import World

        def main():
            world = World()
            world.results.add("done", (world.iteration, world.rank))
            time.sleep(0.1 * world.rank)
            assert world.all_gather((world.rank, world.iteration)) == [
                (rank, world.iteration) for rank in range(world.size)
            ]
            if world.rank == 0:
                seen = world.globals.get("rounds", [])
                world.globals["rounds"] = [*seen, *({world.iteration} - {*seen})]
        """,
        **TASK,
    )


def large() -> Swarm:
    """Values of 5 MB in globals, results and a collective, from objects that live on."""
    return One(
        """
        import numpy as np
        from manta.light import World

        def values(iteration, rank):
            return np.full(600_000, float(10 * iteration + rank))

        class Large:
            def execute(self):
                world = World()
                mine = values(world.iteration, world.rank)
                world.globals[f"of {world.rank}"] = mine
                world.results.add("large", mine)
                world.results.add("done", (world.iteration, world.rank))
                for rank, theirs in enumerate(world.all_gather(mine)):
                    assert np.array_equal(theirs, values(world.iteration, rank))
                assert np.array_equal(world.globals[f"of {world.rank}"], mine)
        """,
        **TASK,
    )


def check_small(api: UserAPI, ended: SwarmOverview) -> None:
    assert api.select_global(ended, "rounds") == [*range(ROUNDS)]


def check_large(api: UserAPI, ended: SwarmOverview) -> None:
    results = api.get_swarm_results(ended, "large")
    values = sorted((result.value.min(), result.value.max()) for result in results if result.counts)
    assert values == [(10 * iteration + rank,) * 2 for iteration, rank in EACH]


@pytest.fixture
def cluster() -> Iterator[Restartable]:
    with running(Restartable, NODES) as cluster:
        assert isinstance(cluster, Restartable)
        yield cluster


@pytest.mark.timeout(1800 if FULL else 300)
def test_swarms_end_as_they_should_whatever_process_dies_or_stands_still(
    cluster: Restartable,
) -> None:
    print(f"MANTA_SEED={SEED}")
    over = threading.Event()
    forms = [(small, check_small), (large, check_large), (small, check_small)]
    with ThreadPoolExecutor(len(forms)) as pool:
        users = [pool.submit(swarms, cluster, *form, over) for form in forms]
        try:
            for number in range(FAULTS):
                fault(cluster, random.Random(f"{SEED}.{number}"))
                for user in users:
                    if user.done():
                        pytest.fail(f"one of the users ended early: {user.exception()!r}")
        finally:
            over.set()
        print(f"{sum(user.result(120) for user in users)} swarms under {FAULTS} faults")
    with client(cluster) as api:
        wait_for_nodes(api, NODES)


def swarms(
    cluster: Restartable,
    make: Callable[[], Swarm],
    check: Callable[[UserAPI, SwarmOverview], None],
    over: threading.Event,
) -> int:
    """One after the other, as one user sees them; how many."""
    count = 0
    with client(cluster) as api:
        while count == 0 or not over.is_set():
            try:
                sent = api.deploy_swarm(CLUSTER, make())
            except NoAnswer:  # the manager was killed meanwhile, and says nothing of it
                continue
            ended = api.wait_swarm(sent, timeout=120)
            assert ended.status == "COMPLETED", (ended.reason, api.collect_errors(ended))
            results = api.get_swarm_results(ended, "done")
            done = sorted(tuple(result.value) for result in results if result.counts)
            assert done == EACH
            finished = Counter(
                (task.iteration, task.index)
                for task in api.get_tasks(ended)
                if task.status == "FINISHED"
            )
            assert finished == Counter(EACH)
            check(api, ended)
            count += 1
    return count


def fault(cluster: Restartable, drawn: random.Random) -> None:
    """One, after a while."""
    time.sleep(drawn.uniform(0.1, 3.0))
    name = drawn.choice(["manager", *cluster.aliases])
    kinds = ["kill", "end", "freeze", "kill below"]
    kind = drawn.choice(kinds[:3] if name == "manager" else kinds)
    away = drawn.choice([0.0, 0.0, 0.5, 3.0])
    print(f"{kind} {name}, for {away} s")
    process = psutil.Process(cluster.child(name).process.pid)
    if kind == "kill":
        cluster.kill(name)
        time.sleep(away)
        cluster.again(name)
    elif kind == "end":
        cluster.end(name)
        time.sleep(away)
        cluster.again(name)
    elif kind == "freeze":
        process.send_signal(signal.SIGSTOP)
        time.sleep(2 * away)  # up to longer than its peers wait for a word
        process.send_signal(signal.SIGCONT)
    elif below := process.children(recursive=True):
        try:
            drawn.choice(below).kill()
        except psutil.NoSuchProcess:
            return  # it ended by itself
