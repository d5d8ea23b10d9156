"""100 users that list nodes and swarms once a second each, and follow a swarm's results.

Each is a user of its own, with a role in one of four clusters; that one has 20 nodes and 50
swarms. Four processes of 25 threads with an API each. p95 of the lists; goal 0.2 s.
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from multiprocessing.managers import ListProxy
from multiprocessing.synchronize import Barrier

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running

PROCESSES, USERS, SECONDS = 4, 100, 10.0
NODES, SWARMS = 20, 50
OTHER_CLUSTERS = ("north", "south", "west")
ROLES = ("viewer", "researcher", "operator")
PASSWORD = "a password of the benchmark"
CODE = """
import time
from manta.light import World

def main():
    World().results.add("beat", World().iteration)
    time.sleep(0.5)
"""


class Over(Swarm):
    """One that has been."""

    def __init__(self) -> None:
        self.only = Task(Module("def main():\n    pass\n", name="over"), method="any")


class Beating(Swarm):
    def __init__(self) -> None:
        super().__init__(max_iteration=1000)
        self.only = Task(Module(CODE, name="beating"), method="any")


def _user(profile: str, swarm_id: str, gate: Barrier, taken: list[float]) -> None:
    with UserAPI(profile=profile) as api:
        stream = api.stream_results(swarm_id)
        next(stream)
        gate.wait()
        end = time.monotonic() + SECONDS
        time.sleep(random.random())  # not all at the same moment
        while time.monotonic() < end:
            begin = time.perf_counter()
            api.list_nodes(CLUSTER)
            api.list_swarms(CLUSTER)
            taken.append((time.perf_counter() - begin) / 2)
            next(stream, None)
            time.sleep(max(0.0, 1 - (time.perf_counter() - begin)))


def _users(profiles: list[str], swarm_id: str, gate: Barrier, taken: ListProxy[float]) -> None:
    mine: list[float] = []
    threads = [
        threading.Thread(target=_user, args=(profile, swarm_id, gate, mine)) for profile in profiles
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken.extend(mine)


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as home,
        running(LocalCluster, NODES) as local,
        client(local) as api,
    ):
        os.environ["MANTA_HOME"] = home  # where the users' profiles and keys go
        profiles = [f"user-{number}" for number in range(USERS)]
        for name in OTHER_CLUSTERS:
            api.create_cluster(name)
        for number, name in enumerate(profiles):
            user = api.add_user(f"{name}@example.org", PASSWORD)
            api.grant_role(user.id, CLUSTER, ROLES[number % len(ROLES)])
            key = local.manager_keys.public
            UserAPI.sign_in(
                user.email, PASSWORD, HOST, local.user_port, profile=name, server_key=key
            ).close()
            time.sleep(0.1)  # more a second are refused
        for _ in range(SWARMS - 1):
            api.wait_swarm(api.deploy_swarm(CLUSTER, Over()), timeout=60)
        swarm = api.deploy_swarm(CLUSTER, Beating()).swarm_id
        context = get_context("spawn")
        with context.Manager() as shared:
            taken, gate = shared.list(), context.Barrier(USERS)
            processes = [
                context.Process(target=_users, args=(profiles[at::PROCESSES], swarm, gate, taken))
                for at in range(PROCESSES)
            ]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            times = sorted(taken)
            if any(process.exitcode for process in processes) or not times:
                sys.exit("a user failed: the figures would lie")
        api.stop_swarm(swarm)
    p95, middle = times[int(0.95 * len(times))], statistics.median(times)
    print(f"{len(times) * 2} lists of {USERS} users, {NODES} nodes, {SWARMS} swarms: ", end="")
    print(f"median {middle * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms, load {os.getloadavg()[0]:.1f}")
