"""Peers of a mesh, as users would write them: `mesh.py ADDRESS RANK MEMBERS`."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from manta import Mesh
from tests.benchmarks.data_plane.members.control import Job, Member, serve

SECRET = "what all members know"


class Peer(Member):
    mesh: Mesh

    def hello(self) -> dict[str, Any]:
        if self.rank:
            return {}
        self.mesh = Mesh.join(secret=SECRET, name="member-0")
        return {"door": self.mesh.address}

    def meet(self, told: dict[str, Any]) -> None:
        if self.rank:
            self.mesh = Mesh.join(peers=told["door"], secret=SECRET, name=f"member-{self.rank}")
        self.mesh.wait(self.size)

    def prepare(self, job: Job) -> None:
        super().prepare(job)
        self.mesh.barrier()

    def all_reduce(self) -> None:
        self.outcome = self.mesh.all_reduce(self.given)

    def trip(self) -> list[float]:
        mesh, other, samples = self.mesh, f"member-{1 - self.rank}", []
        if self.rank:
            for _ in range(self.job.times):
                mesh.send(other, "back", mesh.receive(other, "there"))
            return []
        for letter in self.given:
            begin = time.perf_counter()
            mesh.send(other, "there", letter)
            back = mesh.receive(other, "back")
            samples.append(time.perf_counter() - begin)
            if back != letter:
                raise ValueError("another letter came back")
        return samples


def main(address: str, rank: str, members: str) -> None:
    os.setsid()  # as tasks: the scheduler shares time among sessions (autogroups, sched(7))
    peer = Peer(int(rank), int(members))
    try:
        serve(address, peer)
    finally:
        peer.mesh.leave()


if __name__ == "__main__":
    main(*sys.argv[1:])
