"""Members of a task that meet through planes, each with the client's side of `manta.light`.

Each member has a thread: the context of an attempt is the process's own, so members take turns in
all but their waits.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from manta.light import wire
from manta.light.collectives import direct, logged
from manta.light.context import Brief, Handover, usage
from manta.light.errors import BY_NAME, RequestFailed
from manta.light.world import World
from tests.support.planes import Node, Planes, TaskEnd


class _PerThread:
    """Stands in `manta.light.context.usage` for the attempts of all threads."""

    def __init__(self) -> None:
        self.local = threading.local()

    @property
    def brief(self) -> Brief:
        return self.local.member.brief

    def call(self, request: str, /, **fields: Any) -> Any:
        return self.local.member.call(request, **fields)


contexts = _PerThread()


class Member:
    """An attempt, as its code sees it."""

    def __init__(self, planes: Planes, rank: int, size: int, node: int, attempt: int = 0) -> None:
        self.at = planes.at(rank, attempt)
        self.end: TaskEnd = planes.nodes[node].attempt(self.at)
        self.brief = Brief(
            alias="worker", index=rank, size=size, iteration=0, attempt=attempt, timeout=20.0
        )
        self.brief.direct = True
        self._planes, self._node = planes, node

    def call(self, request: str, /, **fields: Any) -> Any:
        message: dict[str, Any] = {"k": request, **fields}
        fds: tuple[int, ...] = ()
        if isinstance(handover := fields.get("value"), Handover):
            message["value"], fds = handover.payload, handover.fds
        self.end._number += 1
        message["n"] = self.end._number
        self.end.socket.send(message, fds)
        received = self.end.receive()
        if received is None:
            raise ConnectionError("the plane has closed the connection")
        told, got = received
        assert told["n"] == message["n"]
        if told["k"] == "error":
            raise BY_NAME.get(told["kind"], RequestFailed)(told["sentence"])
        return told, got

    def run(self, work: Callable[[World], Any]) -> Any:
        contexts.local.member = self
        return work(World())

    def die(self, *, counts: bool = False) -> None:
        self.end.close()
        node = self._planes.nodes[self._node]
        node.run(node.plane.end, self.at, counts=counts)


class Members:
    """`on` has the node of each rank."""

    def __init__(self, planes: Planes, on: Sequence[int]) -> None:
        self.planes, self.on = planes, list(on)
        planes.introduce()
        planes.enroll(on)
        self._attempts: dict[int, int] = {}
        self._states: dict[str, Any] = {}
        self._threads = ThreadPoolExecutor(max(1, len(on)))
        self.all = [Member(planes, rank, len(on), node) for rank, node in enumerate(on)]
        self._before, usage.context = usage.context, contexts

    def again(
        self, rank: int, attempt: int, node: int | None = None, told: Sequence[Node] | None = None
    ) -> Member:
        """Another attempt, maybe on another node; all learn of it, or those who are `told`."""
        self.on[rank] = self.on[rank] if node is None else node
        self._attempts[rank] = attempt
        self.all[rank].end.close()
        self.planes.enroll(self.on, told=told, attempts=self._attempts, **self._states)
        member = Member(self.planes, rank, len(self.on), self.on[rank], attempt)
        self.all[rank] = member
        return member

    def finish(self, rank: int) -> None:
        """Its attempt ends in good order, as all learn once that may be told."""
        member = self.all[rank]
        member.end.close()
        self.planes.nodes[self.on[rank]].end(member.at)
        self._states[f"r{rank}"] = "FINISHED"
        self.planes.enroll(self.on, attempts=self._attempts, **self._states)

    def restart(self, *nodes: int) -> None:
        """Planes end, and others begin with what is on disk."""
        for rank, node in enumerate(self.on):
            if node in nodes:
                self.all[rank].end.close()
        self.planes.restart(*nodes)
        self.planes.enroll(self.on, attempts=self._attempts, **self._states)

    def begin(self, rank: int, work: Callable[[World], Any]) -> Any:
        """A future of what it returns."""
        return self._threads.submit(self.all[rank].run, work)

    def run(self, work: Callable[[World], Any]) -> list[Any]:
        """What each returns, or the error that it raises."""
        futures = [self.begin(rank, work) for rank in range(len(self.all))]
        return [future.exception(40) or future.result() for future in futures]

    def close(self) -> None:
        usage.context = self._before
        for member in self.all:
            member.end.close()
        self._threads.shutdown()


__all__ = ["Member", "Members", "direct", "logged", "os", "wire"]
