"""A driver of Ray on this machine: `ray_driver.py ADDRESS RANK MEMBERS`, alone in its crew."""

from __future__ import annotations

import sys
import time
from typing import Any

import ray

from tests.benchmarks.data_plane.members.control import Member, serve

RECEIVERS = 4


class Receiver:
    def take(self, value: Any) -> int:
        return len(value)


def nothing() -> None:
    """What is called many times."""


class Idle:
    def execute(self) -> None:
        """The same, in a living object."""


class Driver(Member):
    def __init__(self, rank: int, size: int) -> None:
        super().__init__(rank, size)
        ray.init(num_cpus=2 * RECEIVERS, include_dashboard=False, log_to_driver=False)
        receiver, idle = ray.remote(Receiver), ray.remote(Idle)
        self.nothing = ray.remote(nothing)
        self.receivers = [receiver.remote() for _ in range(RECEIVERS)]
        self.idle = [idle.remote() for _ in range(2)]
        ray.get([receiver.take.remote(b"") for receiver in self.receivers])
        ray.get([self.nothing.remote(), *(idle.execute.remote() for idle in self.idle)])

    def broadcast(self) -> None:
        value = ray.put(self.given)
        ray.get([receiver.take.remote(value) for receiver in self.receivers])

    def forked(self) -> list[float]:
        begin = time.perf_counter()
        ray.get([self.nothing.remote() for _ in range(self.job.times)])
        return [time.perf_counter() - begin]

    def resident(self) -> list[float]:
        begin = time.perf_counter()
        ray.get([self.idle[number % 2].execute.remote() for number in range(self.job.times)])
        return [time.perf_counter() - begin]


def main(address: str, rank: str, members: str) -> None:
    serve(address, Driver(int(rank), int(members)))
    ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
