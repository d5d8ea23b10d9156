"""How much memory what swarms are and hold may take in this process.

    not over    a third of the memory, of which a user has half at most, and a swarm a quarter
    over        a sixth, for those that somebody reads; of a user's half at most
    waits       an eighth, for what nodes told; in the clusters of one user half at most

So a swarm that is over can always be read if its owner's others are not, and what is read takes
nothing from what runs. A user has a 16th of these in any case, however much others have: nobody's
swarms end since those of others are large. The rest is for all else that a manager does.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import NamedTuple

from manta.manager.quotas import control_groups
from manta.manager.quotas.control_groups import CGROUP, PROC


class Memory(NamedTuple):
    """Bytes of the machine, or of the container."""

    all: int

    @property
    def live(self) -> int:
        return self.all // 3

    @property
    def of_user(self) -> int:
        return self.live // 2

    @property
    def sure(self) -> int:
        return self.live // 16

    @property
    def of_swarm(self) -> int:
        return self.live // 4

    @property
    def read(self) -> int:
        return self.live // 2

    @property
    def read_of_user(self) -> int:
        return self.read // 2

    @property
    def read_sure(self) -> int:
        return self.read // 16

    @property
    def coming(self) -> int:
        """What nodes told and nobody has handled yet."""
        return self.all // 8

    @property
    def coming_of_user(self) -> int:
        """In the clusters of one user."""
        return self.coming // 2


UNBOUNDED = Memory(1 << 60)


def here() -> Memory:
    return Memory(min(_bounds()))


def _bounds(proc: Path = PROC, cgroup: Path = CGROUP) -> list[int]:
    found = control_groups.bounds("memory", "memory.max", "memory.limit_in_bytes", proc, cgroup)
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft != resource.RLIM_INFINITY:
        found.append(soft)
    return [*found, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
