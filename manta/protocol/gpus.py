"""GPUs that tasks ask for, those that nodes have, and whether the ones make do with the others.

A task has whole GPUs for itself, or, if it says that it shares, so much of their memory; a GPU is
never both. The manager and the nodes decide by the same functions and say so in the same words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from manta.protocol.spec import ResourceSpec


class GpuDemand(NamedTuple):
    number: int
    memory: int
    """Bytes that each has at least."""
    shared: bool

    def __str__(self) -> str:
        gpus = "1 GPU" if self.number == 1 else f"{self.number} GPUs"
        if self.shared:
            return f"{in_bytes(self.memory)} of {gpus}"
        return f"{gpus} of {in_bytes(self.memory)}" if self.memory else gpus

    @property
    def asked(self) -> str:
        return f"{self} {'is' if self.number == 1 else 'are'} asked for"

    def fits(self, memory: int, room: int) -> bool:
        """Whether a GPU will do of whose memory tasks leave so much."""
        if self.shared:
            return room >= self.memory
        return room == memory >= self.memory


NONE = GpuDemand(0, 0, False)
TAKEN = -1
"""The room of a GPU that a task has for itself."""


def demand(asked: ResourceSpec | None, gpu: bool = False) -> GpuDemand:
    """What is asked for. `gpu`: one at least; so does whoever says how much memory it has."""
    if asked is None:
        return GpuDemand(1, 0, False) if gpu else NONE
    least = 1 if gpu or asked.gpu_memory else 0
    count = least if asked.gpu is None else asked.gpu
    return GpuDemand(count, asked.gpu_memory or 0, asked.gpu_shared) if count else NONE


def lacks(wants: GpuDemand, memories: Sequence[int], room: Sequence[int]) -> str:
    """Why GPUs with these memories are never enough, as the rest of a sentence that begins with who
    has them; "" if they are, though tasks may have to wait until others leave the `room`."""
    large = sum(memory >= wants.memory for memory in memories)
    if large >= wants.number:
        return ""
    if not memories:
        return f"has no GPU, {wants.asked}"
    has = "1 GPU" if len(memories) == 1 else f"{len(memories)} GPUs"
    of = "" if large == len(memories) else f", {large} with so much memory"
    free = sum(map(wants.fits, memories, room or memories))
    return f"has {has}{of}, of which {free} {'is' if free == 1 else 'are'} free, {wants.asked}"


def in_bytes(size: int) -> str:
    """Four digits at most: 24 GiB, 1.5 GiB."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    step = min(len(units) - 1, max(0, size.bit_length() - 1) // 10)
    return f"{size / 1024**step:.4g} {units[step]}"
