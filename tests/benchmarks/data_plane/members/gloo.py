"""torch.distributed with gloo over plain TCP on loopback: `gloo.py ADDRESS RANK MEMBERS`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from tests.benchmarks.data_plane.members.control import Job, Member, serve


class Gloo(Member):
    def prepare(self, job: Job) -> None:
        super().prepare(job)
        if self.given is None:
            self.given = np.ones(job.size // 4, np.float32)
        self.outcome = self.given  # both work in place
        self.tensor = torch.from_numpy(self.given)

    def all_reduce(self) -> None:
        dist.all_reduce(self.tensor)

    def broadcast(self) -> None:
        dist.broadcast(self.tensor, 0)


def main(address: str, rank: str, members: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    member = Gloo(int(rank), int(members))
    store = Path(address).with_name("store")
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=member.rank, world_size=member.size
    )
    member.prepare(Job("all_reduce", 4096))
    member.run()  # connections are made by what first needs them
    serve(address, member)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
