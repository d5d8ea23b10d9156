"""Open MPI's collectives, called in its library without a binding: `openmpi.py ADDRESS`, started
by mpirun."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys

import numpy as np

from tests.benchmarks.data_plane.members.control import Job, Member, serve

_IN_PLACE = ctypes.c_void_p(1)
"""MPI_IN_PLACE of Open MPI's mpi.h."""


class OpenMpi(Member):
    def __init__(self) -> None:
        rank, size = (int(os.environ[f"OMPI_COMM_WORLD_{name}"]) for name in ("RANK", "SIZE"))
        super().__init__(rank, size)
        name = ctypes.util.find_library("mpi") or "libmpi.so.40"
        self.library = ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        self.world, self.float, self.sum = (
            ctypes.c_void_p(
                ctypes.addressof(ctypes.c_char.in_dll(self.library, f"ompi_mpi_{name}"))
            )
            for name in ("comm_world", "float", "op_sum")
        )
        self.done(self.library.MPI_Init(None, None))

    def done(self, code: int) -> None:
        if code:
            raise OSError(f"Open MPI's code {code}")

    def prepare(self, job: Job) -> None:
        super().prepare(job)
        if self.given is None:
            self.given = np.ones(job.size // 4, np.float32)
        self.outcome = self.given  # both work in place

    def all_reduce(self) -> None:
        value = self.given
        call = self.library.MPI_Allreduce
        where = ctypes.c_void_p(value.ctypes.data)
        self.done(call(_IN_PLACE, where, value.size, self.float, self.sum, self.world))

    def broadcast(self) -> None:
        value = self.given
        where = ctypes.c_void_p(value.ctypes.data)
        self.done(self.library.MPI_Bcast(where, value.size, self.float, 0, self.world))

    def settle(self) -> None:
        """What was sent leaves only while MPI is being called."""
        self.done(self.library.MPI_Barrier(self.world))


def main(address: str) -> None:
    member = OpenMpi()
    serve(address, member)
    member.done(member.library.MPI_Finalize())


if __name__ == "__main__":
    main(*sys.argv[1:])
