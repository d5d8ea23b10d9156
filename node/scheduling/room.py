"""What tasks may use of a node, what those that run have reserved, and what is left. Pure.

Places, cores, memory and disk are counted; GPUs are given by name. A GPU goes to the task that had
it last, whose runtime may still hold it, if that asks again; else to whom it was free for longest.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manta.protocol.gpus import NONE, TAKEN, GpuDemand, demand, in_bytes, lacks
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ResourceSpec


class Capacity(msgspec.Struct, frozen=True):
    """What tasks may use; None: not limited here. Memory and disk in bytes."""

    places: int
    cpu: float | None = None
    memory: int | None = None
    disk: int | None = None
    scratch: int | None = None
    """What one of them may have of the disk."""
    gpus: bool = True
    """Whether they may use those that there are."""


class Asked(msgspec.Struct, frozen=True):
    """What a task needs while it runs."""

    cpu: float = 0.0
    memory: int = 0
    disk: int = 0
    gpus: GpuDemand = NONE

    @classmethod
    def of(cls, assignment: Assignment) -> Asked:
        asked = assignment.resources or ResourceSpec()
        gpus = demand(assignment.resources, assignment.gpu)
        return cls(asked.cpu or 0.0, asked.memory or 0, asked.disk or 0, gpus)

    @property
    def kinds(self) -> frozenset[str]:
        """Of what it needs some."""
        amounts = {"cpu": self.cpu, "memory": self.memory, "disk": self.disk}
        asked = {kind for kind, amount in amounts.items() if amount}
        return frozenset(asked | ({"gpus"} if self.gpus.number else set()))


class _Holds(msgspec.Struct, frozen=True):
    asked: Asked
    gpus: tuple[str, ...]
    share: float


class Room:
    def __init__(self, capacity: Capacity) -> None:
        self._has = capacity
        self._held: dict[Instance, _Holds] = {}
        self._cpu, self._memory, self._disk = 0.0, 0, 0
        self._gpus: dict[str, int] = {}
        """Their memory, by id."""
        self._reserved: dict[str, int] = {}
        """Of each, as far as something is; TAKEN for one that a task has alone."""
        self._last: dict[str, tuple[str, str, int]] = {}
        """Which instance of a task had each, those that were free for longest first."""

    @property
    def has_place(self) -> bool:
        return len(self._held) < self._has.places

    @property
    def gpu_room(self) -> tuple[int, ...]:
        """Of each GPU, in the order in which they were found, what of its memory is left."""
        return tuple(map(self._room_of, self._gpus))

    def may_take(self, capacity: Capacity) -> None:
        """Tasks may use as much from now on, and keep what they have."""
        self._has = capacity

    def found(self, gpus: Iterable[tuple[str, int]]) -> None:
        """The machine has these GPUs now: their ids and memory. Tasks keep what they have."""
        self._gpus = dict(gpus)
        self._last = {gpu: by for gpu, by in self._last.items() if gpu in self._gpus}

    def never(self, asked: Asked) -> str:
        """Why there is never room, with the figures, as the rest of a sentence about the task."""
        has = self._has
        if has.places < 1:
            return "this node takes no tasks (max_concurrent_tasks is 0)"
        if has.cpu is not None and asked.cpu > has.cpu:
            return f"it asks for {asked.cpu:g} cores, tasks may use {has.cpu:g} here"
        if has.memory is not None and asked.memory > has.memory:
            wants, may = in_bytes(asked.memory), in_bytes(has.memory)
            return f"it asks for {wants} of memory, tasks may use {may} here"
        if has.scratch is not None and asked.disk > has.scratch:
            wants, may = in_bytes(asked.disk), in_bytes(has.scratch)
            return f"it asks for {wants} of disk, a task may keep {may} here (resources.scratch_mb)"
        if has.disk is not None and asked.disk > has.disk:
            wants, may = in_bytes(asked.disk), in_bytes(has.disk)
            return f"it asks for {wants} of disk, this node had {may} free at its start"
        if asked.gpus.number and not has.gpus:
            return f"tasks may use no GPU here (containers.gpu_enabled), {asked.gpus.asked}"
        if why := lacks(asked.gpus, tuple(self._gpus.values()), self.gpu_room):
            return f"this node {why}"
        return ""

    def lacking(self, asked: Asked) -> frozenset[str]:
        """Of what there is not enough left, places aside."""
        has, found = self._has, list[str]()
        if has.cpu is not None and asked.cpu and self._cpu + asked.cpu > has.cpu + 1e-9:
            found.append("cpu")
        if has.memory is not None and asked.memory and self._memory + asked.memory > has.memory:
            found.append("memory")
        if has.disk is not None and asked.disk and self._disk + asked.disk > has.disk:
            found.append("disk")
        if len(self._fitting(asked.gpus)) < asked.gpus.number:
            found.append("gpus")
        return frozenset(found)

    def take(self, instance: Instance, asked: Asked) -> tuple[str, ...]:
        """Reserves what was asked for; returns the ids of the GPUs that it has."""
        who = instance.swarm_id, instance.alias, instance.index
        order = {gpu: number for number, gpu in enumerate(self._last)}

        def rank(gpu: str) -> tuple[bool, int, int]:
            # Of those that may be shared, what others share already: whole ones stay free.
            return self._last.get(gpu) != who, self._room_of(gpu), order.get(gpu, -1)

        gpus = tuple(sorted(self._fitting(asked.gpus), key=rank)[: asked.gpus.number])
        for gpu in gpus:
            self._last[gpu] = who
            if asked.gpus.shared:
                self._reserved[gpu] = self._reserved.get(gpu, 0) + asked.gpus.memory
            else:
                self._reserved[gpu] = TAKEN
        self._cpu += asked.cpu
        self._memory += asked.memory
        self._disk += asked.disk
        self._held[instance] = _Holds(asked, gpus, self._share(asked))
        return gpus

    def give_back(self, instance: Instance) -> float:
        """Returns the share of the node that it had; 0 if it had nothing."""
        holds = self._held.pop(instance, None)
        if holds is None:
            return 0.0
        asked = holds.asked
        self._cpu -= asked.cpu
        self._memory -= asked.memory
        self._disk -= asked.disk
        if not self._held:
            self._cpu = 0.0  # without what sums of fractions leave
        for gpu in holds.gpus:
            if (who := self._last.pop(gpu, None)) is not None:
                self._last[gpu] = who  # the last to be free
            left = 0 if not asked.gpus.shared else self._reserved[gpu] - asked.gpus.memory
            if left:
                self._reserved[gpu] = left
            else:
                del self._reserved[gpu]
        return holds.share

    def share(self, instance: Instance) -> float:
        return self._held[instance].share

    def _share(self, asked: Asked) -> float:
        """Which part it takes of that of which it takes the greatest part."""
        has = self._has
        parts = [1 / has.places]
        parts += [asked.cpu / has.cpu] if has.cpu else []
        parts += [asked.memory / has.memory] if has.memory else []
        parts += [asked.disk / has.disk] if has.disk else []
        if total := sum(self._gpus.values()):
            count, memory, shared = asked.gpus
            parts.append(count * memory / total if shared else count / len(self._gpus))
        return max(parts)

    def _room_of(self, gpu: str) -> int:
        reserved = self._reserved.get(gpu, 0)
        return TAKEN if reserved == TAKEN else self._gpus[gpu] - reserved

    def _fitting(self, wants: GpuDemand) -> list[str]:
        if not wants.number:
            return []
        return [gpu for gpu, size in self._gpus.items() if wants.fits(size, self._room_of(gpu))]
