"""An instance of a task that is measured: through the public API, as users would write it."""

from __future__ import annotations

import time
from typing import Any

from control import Job, Member, serve  # type: ignore[import-not-found]

from manta.light import World


class Instance(Member):
    def __init__(self, world: World) -> None:
        super().__init__(world.rank, world.size)
        self.world = world
        self.other: Any = world.peers[1 - world.rank] if world.size == 2 else None

    def prepare(self, job: Job) -> None:
        super().prepare(job)
        if self.size > 1:
            self.world.barrier()  # what an attempt sets up for its first exchange is there

    def all_reduce(self) -> None:
        self.outcome = self.world.all_reduce(self.given)

    def broadcast(self) -> None:
        tag = f"value-{self.job.number}"
        if self.rank == 0:
            self.world.broadcast(tag, self.given)
            self.outcome = self.given
        else:
            self.outcome = self.world.get_broadcast(tag)

    def stream(self) -> None:
        for _ in range(self.job.times):
            if self.rank == 0:
                self.world.send_to_node(self.other, "value", self.given)
                self.outcome = self.given
            else:
                self.outcome = self.world.receive_from_node(self.other, "value")

    def trip(self) -> list[float]:
        world, other, samples = self.world, self.other, []
        if self.rank:
            for _ in range(self.job.times):
                world.send_to_node(other, "back", world.receive_from_node(other, "there"))
            return []
        for letter in self.given:
            begin = time.perf_counter()
            world.send_to_node(other, "there", letter)
            back = world.receive_from_node(other, "back")
            samples.append(time.perf_counter() - begin)
            if back != letter:
                raise ValueError("another letter came back")
        return samples

    def ask(self) -> list[float]:
        """Reads a global that is not there, which only the manager can tell."""
        samples = []
        for _ in range(self.job.times):
            begin = time.perf_counter()
            self.world.get("absent")
            samples.append(time.perf_counter() - begin)
            time.sleep(0.005)
        return samples


def main() -> None:
    world = World()
    told = serve(world.globals["control"], Instance(world))
    if told == "stop" and world.rank == 0:
        world.stop_swarm()
