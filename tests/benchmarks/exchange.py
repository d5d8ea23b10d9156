"""What instances say to each other: an all_reduce of 0.4 and 10 MB over 4 and 8 of them, and
a letter there and back.

On one manager and two nodes of this machine, in tasks that are warm. Beside them, in the same
run: the same reduction by threads of one process that pass the arrays through queues, and a
letter there and back over a pipe between two processes: what nobody could beat here.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import numpy as np

from manta import Module, Swarm, Task, UserAPI
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

SIZES = (400_000, 10_000_000)
INSTANCES = (4, 8)
REPEATS, LETTERS = 7, 50

REDUCE = """
    import time
    import numpy as np
    from manta.light import World
    def main():
        world = World()
        value = np.full({size} // 4, world.rank, dtype="f4")
        world.all_reduce(value)
        seconds = []
        for _ in range({repeats}):
            world.barrier()
            begin = time.perf_counter()
            total = world.all_reduce(value)
            seconds.append(time.perf_counter() - begin)
            assert total[0] == world.size * (world.size - 1) // 2
        return seconds
"""
LETTER = """
    import time
    from manta.light import World
    def main():
        world = World()
        other = "node-2" if world.rank == 0 else "node-1"
        seconds = []
        for number in range({letters}):
            begin = time.perf_counter()
            if world.rank == 0:
                world.send_to_node(other, "there", number)
                world.receive_from_node(other, "back")
            else:
                world.send_to_node(other, "back", world.receive_from_node(other, "there"))
            seconds.append(time.perf_counter() - begin)
        return seconds
"""


class Talk(Swarm):
    def __init__(self, code: str, **task: Any) -> None:
        super().__init__()
        self.only = Task(Module(textwrap.dedent(code), name="talk"), **task)


def _measured(api: UserAPI, swarm: Swarm) -> list[list[float]]:
    """Seconds by instance and repetition."""
    done = api.wait_swarm(api.deploy_swarm(CLUSTER, swarm), timeout=300)
    if done.status != "COMPLETED":
        raise SystemExit(f"the swarm {done.status}: {done.reason}")
    return [task.output for task in api.get_tasks(done)]


def _by_threads(size: int, instances: int) -> float:
    """Seconds of the same reduction, in one process."""
    inboxes: list[SimpleQueue[Any]] = [SimpleQueue() for _ in range(instances)]
    value = np.full(size // 4, 1, dtype="f4")

    def instance(rank: int) -> None:
        inboxes[0].put(value.copy())
        if rank == 0:
            total = sum(inboxes[0].get() for _ in range(instances))
            for other in range(1, instances):
                inboxes[other].put(total.copy())
        else:
            inboxes[rank].get()

    begin = time.perf_counter()
    threads = [threading.Thread(target=instance, args=[rank]) for rank in range(instances)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def _echo(end: Connection) -> None:
    for _ in range(LETTERS):
        end.send(end.recv())


def _by_pipe() -> list[float]:
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.get_context("fork").Process(target=_echo, args=[theirs])
    other.start()
    seconds = []
    for number in range(LETTERS):
        begin = time.perf_counter()
        ours.send(number)
        ours.recv()
        seconds.append(time.perf_counter() - begin)
    other.join()
    return seconds


def _median(measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(REPEATS))


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f}")
    with running(LocalCluster, 2) as local, client(local) as api:
        for instances in INSTANCES:
            for size in SIZES:
                code = REDUCE.format(size=size, repeats=REPEATS)
                seconds = _measured(api, Talk(code, replicas=instances))
                slowest = statistics.median(map(max, zip(*seconds, strict=True)))
                threads = _median(partial(_by_threads, size, instances))
                rate = size * instances / slowest / 1e6
                print(
                    f"all_reduce of {size / 1e6:g} MB over {instances}: {slowest * 1e3:.0f} ms, "
                    f"{rate:.0f} MB/s; by threads {threads * 1e3:.1f} ms"
                )
        letters = _measured(api, Talk(LETTER.format(letters=LETTERS)))[0]
        print(
            f"a letter there and back: {statistics.median(letters) * 1e3:.1f} ms; "
            f"over a pipe {statistics.median(_by_pipe()) * 1e3:.2f} ms"
        )
