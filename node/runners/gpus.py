"""GPUs as tasks get them: by name, one by one. A task sees those that it has, and no others.

A sandbox, a confined process and a container have the device files of those GPUs alone. A plain
process is only told which it has: it can open what its user can.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

from manta.protocol.machine import CUDA, ROCM, GpuInfo

_OF_ALL = {
    # By which each GPU of the kind is reached.
    CUDA: ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"),
    ROCM: ("kfd",),
}
_VISIBLE = {
    CUDA: ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
    ROCM: ("ROCR_VISIBLE_DEVICES",),
}


class Gpu(msgspec.Struct, frozen=True):
    """`device`: its own file; `name`: what the variables of its kind call it."""

    info: GpuInfo
    device: Path
    name: str

    @property
    def id(self) -> str:
        return self.info.id


def devices(gpus: Sequence[Gpu]) -> list[Path]:
    """The device files that tasks need which have these."""
    folder = Path("/dev")
    common = [folder / name for kind in {gpu.info.kind for gpu in gpus} for name in _OF_ALL[kind]]
    return sorted({*filter(os.path.exists, common), *(gpu.device for gpu in gpus)})


def environment(gpus: Sequence[Gpu]) -> dict[str, str]:
    """The variables by which libraries find these, and none else."""
    found = dict[str, str]()
    for kind, names in _VISIBLE.items():
        visible = ",".join(gpu.name for gpu in gpus if gpu.info.kind == kind)
        found |= dict.fromkeys(names, visible)
    if gpus:
        return found
    return found | {"NVIDIA_VISIBLE_DEVICES": "void"}  # empty, NVIDIA's runtime takes it for unset
