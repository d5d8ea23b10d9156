"""Processes that are measured together, each told over a Unix socket what to do and when."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Self

from manta import Module, Swarm, Task, UserAPI
from manta.apis.errors import MantaError
from manta.cli.local.cluster import CLUSTER
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import NotMeasured

ROOT = Path(__file__).parents[3]
MEMBERS = Path(__file__).parent / "members"
PATIENCE = 120.0
"""Seconds within which members have come."""
ANSWER, SLOWEST = 30.0, 5e6
"""Seconds within which they answer where no bytes move, and the bytes a second that are waited for
where some do."""
SETTLES = 0.02
"""Seconds from when all are told to when they begin, at once."""
LARGE = 10_000_000
"""Bytes from which what an iteration holds is let go after each measurement."""


class Crew:
    """The report's end: members connect, and are told all the same."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.pids: list[int] = []
        """Of the members, by rank."""
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.address = str(Path(self._folder.name) / "control")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(members)
        self._connections: list[tuple[socket.socket, IO[str]]] = []
        self._jobs = 0
        self._patience = ANSWER

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._disconnect()
        self._listener.close()
        self._folder.cleanup()

    def measure(self, job: Job) -> list[float]:
        """The members' own samples, or else the seconds from the common start to the last end.

        Raises NotMeasured, as all that follow.
        """
        self.prepare(job)
        return self.go()

    def prepare(self, job: Job) -> None:
        """Has every member make its data."""
        self._jobs += 1
        self._patience = ANSWER + job.size * job.times / SLOWEST
        self.tell("prepare", job=job._replace(number=self._jobs))

    def go(self) -> list[float]:
        """Measures what was prepared."""
        start = time.perf_counter() + SETTLES
        told = self.tell("go", at=start)
        digests = {said["digest"] for said in self.tell("check")} - {""}
        if len(digests) > 1:
            raise NotMeasured("its members ended with different values")
        own = [sample for said in told for sample in said["samples"]]
        return own or [max(said["ended"] for said in told) - start]

    def gather(self) -> None:
        """Waits until all members have connected."""
        self._disconnect()
        hellos: list[tuple[dict[str, Any], socket.socket, IO[str]]] = []
        until = time.monotonic() + PATIENCE
        while len(hellos) < self.members:
            if select.select([self._listener], [], [], 0.2)[0]:
                connection, _ = self._listener.accept()
                reader = connection.makefile("r", encoding="utf-8")
                hellos.append((self._heard(reader), connection, reader))
            elif reason := self.ended():
                raise NotMeasured(reason)
            elif time.monotonic() > until:
                raise NotMeasured(
                    f"{len(hellos)} of {self.members} members came within {PATIENCE:g} s"
                )
        hellos.sort(key=lambda hello: hello[0]["rank"])
        self._connections = [(connection, reader) for _, connection, reader in hellos]
        self.pids = [said["pid"] for said, _, _ in hellos]
        self.tell("meet", told=hellos[0][0]["told"])

    def tell(self, do: str, **more: Any) -> list[dict[str, Any]]:
        """Tells all members something, and returns their answers by rank. Where that fails, none is
        told anything more."""
        if not self._connections:
            raise NotMeasured(self.ended() or "its members are gone")
        try:
            return self._told(json.dumps({"do": do, **more}).encode() + b"\n")
        except NotMeasured:
            self._disconnect()
            raise

    def _told(self, line: bytes) -> list[dict[str, Any]]:
        for connection, _ in self._connections:
            try:
                connection.sendall(line)
            except OSError as error:
                raise NotMeasured(self._why()) from error
        answers: dict[int, dict[str, Any]] = {}
        until = time.monotonic() + self._patience
        while len(answers) < len(self._connections):
            waiting = {
                connection: (rank, reader)
                for rank, (connection, reader) in enumerate(self._connections)
                if rank not in answers
            }
            left = until - time.monotonic()
            ready = select.select(list(waiting), [], [], max(0.0, left))[0]
            if not ready:
                raise NotMeasured(
                    f"{len(waiting)} of {self.members} members gave no answer within "
                    f"{self._patience:.0f} s"
                )
            for connection in ready:
                rank, reader = waiting[connection]
                answers[rank] = self._heard(reader)
        return [answers[rank] for rank in range(len(answers))]

    def _heard(self, reader: IO[str]) -> dict[str, Any]:
        line = reader.readline()
        if not line:
            raise NotMeasured(self._why())
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise NotMeasured(said["error"])
        return said

    def _why(self) -> str:
        time.sleep(0.5)  # until what has ended can be asked
        return self.ended() or "a member has ended"

    def _disconnect(self) -> None:
        for connection, reader in self._connections:
            reader.close()
            connection.close()
        self._connections = []

    def ended(self) -> str:
        """Why there are no members any more; empty while there are."""
        raise NotImplementedError


class ProcessCrew(Crew):
    """Processes of a program of `members/`; `{rank}` in its command stands for each one's rank.

    A command without it is run once, and starts all of them.
    """

    def __init__(self, command: Sequence[str], members: int) -> None:
        super().__init__(members)
        self._output = Path(self._folder.name) / "output"
        once = not any("{rank}" in word for word in command)
        with open(self._output, "wb") as output:
            self._processes = [
                subprocess.Popen(
                    [
                        word.format(rank=rank, members=members, address=self.address)
                        for word in command
                    ],
                    cwd=ROOT,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
                for rank in range(1 if once else members)
            ]
        try:
            self.gather()
        except BaseException:
            self.close()
            raise

    def ended(self) -> str:
        codes = [code for process in self._processes if (code := process.poll()) is not None]
        if not codes:
            return ""
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return lines[-1].strip() if lines else f"it ended with {codes[0]}"

    def close(self) -> None:
        self._disconnect()  # then they end by themselves
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        super().close()


class Instances(Swarm):
    """Instances on some nodes, one on each or as many as there are members, that are told."""

    name = "measured"

    def __init__(self, control: str, nodes: Sequence[str], members: int) -> None:
        super().__init__(max_iteration=10_000)
        self.set_global("control", control)
        many: dict[str, Any] = {} if members == len(nodes) else {"replicas": members}
        module = Module(MEMBERS / "instance.py", include=[MEMBERS / "control.py"])
        self.instance = Task(module, specified_ids=list(nodes), **many)


class SwarmCrew(Crew):
    """Instances of a task, all in one iteration, and after large values in one after it."""

    def __init__(self, api: UserAPI, nodes: Sequence[str], members: int) -> None:
        super().__init__(members)
        self._api = api
        try:
            self._swarm = api.deploy_swarm(CLUSTER, Instances(self.address, nodes, members))
            self.gather()
        except MantaError as error:
            super().close()
            raise NotMeasured(str(error).rstrip(".")) from error
        except BaseException:
            self.close()
            raise

    def measure(self, job: Job) -> list[float]:
        samples = super().measure(job)
        if job.size >= LARGE:
            self.renew()
        return samples

    def renew(self) -> None:
        """Ends the iteration, and with it what is kept for it; its successor has the members."""
        self.tell("leave")
        self.gather()

    def ended(self) -> str:
        swarm = self._api.get_swarm(self._swarm)
        if not swarm.ended and swarm.status != "FAILED":
            return ""
        return str(swarm.reason or f"the swarm {swarm.status}").rstrip(".")

    def close(self) -> None:
        try:
            if self._connections:
                self.tell("stop")
                self._api.wait_swarm(self._swarm, timeout=PATIENCE)
            else:
                self._api.stop_swarm(self._swarm, force=True)
            self._api.remove_swarm(self._swarm)
        except (NotMeasured, MantaError):
            pass  # it has failed, which has been told
        super().close()


def python(module: str, *arguments: str) -> list[str]:
    """The command of a program of `members/`."""
    return [sys.executable, "-m", f"tests.benchmarks.data_plane.members.{module}", *arguments]
