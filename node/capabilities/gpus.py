"""The GPUs of this machine: NVIDIA's as its driver tells, AMD's as the kernel shows them.

NVIDIA's are asked for by NVML (https://docs.nvidia.com/deploy/nvml-api). AMD's are nodes of the
topology of the kernel's compute driver, in files under `/sys/class/kfd`
(https://docs.kernel.org/gpu/amdgpu); what has no SIMD units there is a processor.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

from manta.node.runners.gpus import Gpu
from manta.protocol.machine import CUDA, ROCM, GpuInfo

log = logging.getLogger(__name__)

SYS, DEV, ROCM_VERSION = Path("/sys"), Path("/dev"), Path("/opt/rocm/.info/version")
MOST = 64
"""GPUs of each kind; no machine has more."""
_VRAM = ("1", "2")
"""Heaps of the kernel's that are a GPU's own memory, open to the processor or not."""


class Found(NamedTuple):
    gpus: tuple[Gpu, ...]
    divided: tuple[str, ...] = ()
    """The names of those that tasks are not given, since they are divided (MIG): the driver takes
    the first part for the whole, whatever a task was promised."""
    trouble: str = ""
    """Why NVIDIA's are not used though there is a driver, without a full stop."""


def find() -> Found:
    found = _nvidia()
    return found._replace(gpus=(*found.gpus, *rocm()))


class Watcher:
    """Looks again and again, and logs why there are none of NVIDIA's when that has changed."""

    def __init__(self) -> None:
        self._trouble = ""

    def find(self) -> tuple[Gpu, ...]:
        found = find()
        before, self._trouble = self._trouble, found.trouble
        if found.trouble and found.trouble != before:
            log.warning(
                "GPUs are not used: %s; correct it, or set containers.gpu_enabled = false",
                found.trouble,
            )
        elif before and not found.trouble:
            log.info("The driver of the GPUs can be asked again")
        return found.gpus


def _nvidia() -> Found:
    if not (DEV / "nvidiactl").exists():
        return Found(())  # without importing what would find nothing
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # whatever a driver that does not fit its library raises
        return _unasked(error)
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        cuda = f"{version // 1000}.{version % 1000 // 10}"
        whole, divided = list[Gpu](), list[str]()
        for number in range(min(MOST, pynvml.nvmlDeviceGetCount())):
            handle = pynvml.nvmlDeviceGetHandleByIndex(number)
            name, id_ = _text(pynvml.nvmlDeviceGetName(handle)), pynvml.nvmlDeviceGetUUID(handle)
            if _is_divided(handle):
                divided.append(name)
                continue
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle).total
            info = GpuInfo(name, memory, _text(id_), CUDA, driver, cuda)
            device = DEV / f"nvidia{pynvml.nvmlDeviceGetMinorNumber(handle)}"
            whole.append(Gpu(info, device, info.id))
        return Found(tuple(whole), tuple(divided))
    except pynvml.NVMLError as error:
        return _unasked(error)
    finally:
        pynvml.nvmlShutdown()


def _unasked(error: Exception) -> Found:
    return Found((), trouble=f"the driver cannot be asked ({error})")


def _is_divided(handle: object) -> bool:
    import pynvml

    try:
        now, _ = pynvml.nvmlDeviceGetMigMode(handle)
    except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
        return False
    return bool(now == pynvml.NVML_DEVICE_MIG_ENABLE)


def _text(told: str | bytes) -> str:
    return told.decode(errors="replace") if isinstance(told, bytes) else told


def rocm() -> tuple[Gpu, ...]:
    """None where the kernel shows none."""
    nodes = SYS / "class/kfd/kfd/topology/nodes"
    try:
        folders = sorted(nodes.iterdir(), key=lambda folder: int(folder.name))
    except (OSError, ValueError):
        return ()
    driver, toolkit = _line(SYS / "module/amdgpu/version"), _line(ROCM_VERSION)
    found: list[Gpu] = []
    for folder in folders:
        told = _properties(folder / "properties")
        if told.get("simd_count", "0") == "0" or len(found) == MOST:
            continue
        unique = int(told.get("unique_id", "0"))
        name = f"GPU-{unique:016x}" if unique else str(len(found))
        device = DEV / "dri" / f"renderD{told.get('drm_render_minor', '0')}"
        banks = map(_properties, (folder / "mem_banks").glob("*/properties"))
        memory = sum(
            int(bank.get("size_in_bytes", "0")) for bank in banks if bank.get("heap_type") in _VRAM
        )
        info = GpuInfo(
            _line(folder / "name") or "AMD GPU", memory, f"rocm:{name}", ROCM, driver, toolkit
        )
        found.append(Gpu(info, device, name))
    return tuple(found)


def _properties(path: Path) -> dict[str, str]:
    """Lines with a name and a number each."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        pairs = (line.split() for line in path.read_text().splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}
    return {}


def _line(path: Path) -> str:
    """What a file says in its first line; "" if there is none."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text().partition("\n")[0].strip()[:100]
    return ""
