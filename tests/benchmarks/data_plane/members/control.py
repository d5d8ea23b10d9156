"""The end of a process that is measured: it does what the report tells it over a Unix socket.

Each command and each answer is a line of JSON. This file stands alone: it is sent to nodes as
well, beside the task that imports it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from typing import Any, NamedTuple

import numpy as np


class Job(NamedTuple):
    """What is measured once: so many `times`, with `size` bytes. `number` is unique."""

    operation: str
    size: int = 0
    times: int = 1
    number: int = 0


class Member:
    """One of several processes that are measured together.

    A job's operation is the name of a method, which returns samples of its own, in seconds, or
    None where the time from the common start until the last member has returned is the sample.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.job = Job("")
        self.given: Any = None
        self.outcome: Any = None

    def hello(self) -> dict[str, Any]:
        """What the first member tells the others before all else."""
        return {}

    def meet(self, told: dict[str, Any]) -> None:
        """Takes what the first member said in `hello`."""

    def prepare(self, job: Job) -> None:
        """Makes fresh data that does not compress, before the clock starts."""
        self.job = job
        self.given = self.outcome = None
        if job.size and (self.rank == 0 or job.operation == "all_reduce"):
            self.given = fresh(job, self.rank)

    def run(self) -> list[float]:
        return getattr(self, self.job.operation)() or []

    def settle(self) -> None:
        """Does what the others may still need of this member, after its time was taken."""

    def check(self) -> str:
        """A digest of the outcome, the same for all that have one; else empty. Raises ValueError
        for what can't be right."""
        if not isinstance(self.outcome, np.ndarray):
            return ""
        if self.job.operation == "all_reduce":
            total = self.size * (self.size + 1) / 2
            if (self.outcome[0], self.outcome[-1]) != (total, total):
                raise ValueError(f"the sum at the ends is not {total:g}")
        step = self.outcome.nbytes // 8192 | 1  # odd: every byte of an element has its turn
        some = self.outcome.view(np.uint8)[::step].tobytes()
        return hashlib.blake2b(some, digest_size=16).hexdigest()


def fresh(job: Job, rank: int) -> Any:
    """float32 from 0 to 1, in memory that has been written; or texts of random bytes."""
    if job.operation == "trip":
        return [os.urandom(job.size) for _ in range(job.times)]
    value = np.random.default_rng().random(job.size // 4, dtype=np.float32)
    value[0] = value[-1] = rank + 1  # their sum tells whether all were added
    return value


def serve(address: str, member: Member) -> str:
    """Does what it is told until it is to leave or stop; returns that word."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)

        def say(**told: Any) -> None:
            connection.sendall(json.dumps(told).encode() + b"\n")

        say(rank=member.rank, pid=os.getpid(), told=member.hello())
        for line in connection.makefile("r", encoding="utf-8"):
            command = json.loads(line)
            if command["do"] in ("leave", "stop"):
                say()
                return command["do"]
            try:
                told = _do(member, command)
            except Exception as error:
                say(error=f"{type(error).__name__}: {error}")
                raise
            say(**told)
    return "stop"  # the report is gone


def _do(member: Member, command: dict[str, Any]) -> dict[str, Any]:
    match command["do"]:
        case "meet":
            member.meet(command["told"])
        case "prepare":
            member.prepare(Job(*command["job"]))
        case "go":
            # This clock is the same for all processes of a machine.
            time.sleep(max(0.0, command["at"] - time.perf_counter()))
            samples, ended = member.run(), time.perf_counter()
            member.settle()
            return {"ended": ended, "samples": samples}
        case "check":
            return {"digest": member.check()}
    return {}
