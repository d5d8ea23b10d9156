"""100 connections that list nodes and swarms once a second each, and follow a swarm's results.

Four processes of 25 threads with an API each, all of one user. p95 of the lists; goal 0.2 s.
"""

from __future__ import annotations

import statistics
import threading
import time
from multiprocessing import get_context

from manta import Module, Swarm, Task, UserAPI
from manta.apis.profiles import Target
from manta.apis.session import Session
from manta.cli.local import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running
from manta.transports.keys import KeyPair

PROCESSES, THREADS, SECONDS = 4, 25, 10.0
CODE = """
import time
from manta.light import World

def main():
    World().results.add("beat", World().iteration)
    time.sleep(0.5)
"""


class Beating(Swarm):
    def __init__(self) -> None:
        super().__init__(max_iteration=60)
        self.only = Task(Module(CODE, name="beating"), method="any")


def _user(target: Target, keys: KeyPair, swarm_id: str, taken: list[float]) -> None:
    with UserAPI.over(Session(target, keys)) as api:
        stream = api.stream_results(swarm_id)
        next(stream)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            begin = time.perf_counter()
            api.list_nodes(CLUSTER)
            api.list_swarms(CLUSTER)
            taken.append((time.perf_counter() - begin) / 2)
            next(stream, None)
            time.sleep(max(0.0, 1 - (time.perf_counter() - begin)))


def _users(target: Target, keys: KeyPair, swarm_id: str) -> list[float]:
    taken: list[float] = []
    threads = [
        threading.Thread(target=_user, args=(target, keys, swarm_id, taken)) for _ in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken


def main() -> None:
    with running(LocalCluster, 2) as local:
        target = Target(HOST, local.user_port, "bench", server_key=local.manager_keys.public)
        with client(local) as api:
            swarm = api.deploy_swarm(CLUSTER, Beating()).swarm_id
        with get_context("spawn").Pool(PROCESSES) as pool:
            parts = pool.starmap(_users, [(target, local.keys, swarm)] * PROCESSES)
    taken = sorted(second for part in parts for second in part)
    p95 = taken[int(0.95 * len(taken))]
    middle = statistics.median(taken)
    print(f"{len(taken) * 2} lists: median {middle * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms")
