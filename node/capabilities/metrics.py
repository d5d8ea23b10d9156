"""The machine's capabilities and its load."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from typing import Any

import msgspec
import psutil

from manta.actors import Actor
from manta.node.shared.context import NodeContext
from manta.protocol.isolation import rank
from manta.protocol.node import Capabilities, GpuInfo, Load
from manta.protocol.version import VERSION

SAMPLE_EVERY = 2.0


class Describe(msgspec.Struct, frozen=True):
    """Answered with Capabilities, without datasets."""


class ReadResources(msgspec.Struct, frozen=True):
    """Answered with the dict of `Local.get_resources`."""


class ReadPerformance(msgspec.Struct, frozen=True):
    """Answered with the dict of `Local.get_performance_metrics`."""


class _Sample(msgspec.Struct, frozen=True):
    pass


class Metrics(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._gpus: tuple[GpuInfo, ...] = ()

    def on_start(self) -> None:
        if self._context.config.gpu_enabled:
            self._gpus = find_gpus()
        self._sample()

    def receive(self, message: Any) -> Any:
        match message:
            case _Sample():
                self._sample()
                return None
            case Describe():
                return self._describe()
            case ReadResources():
                return self._resources()
            case ReadPerformance():
                return self._performance()
            case _:
                return super().receive(message)

    def _sample(self) -> None:
        self._context.load = Load(
            cpu_usage=psutil.cpu_percent() / 100,
            memory_available=psutil.virtual_memory().available,
            disk_free=self._disk_free(),
            environments=self._context.environments.there,
        )
        self._context.check_storage(self)
        self.after(SAMPLE_EVERY, _Sample())

    def _disk_free(self) -> int:
        return shutil.disk_usage(self._context.state.path).free

    def _describe(self) -> Capabilities:
        config = self._context.config
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        reserved = config.reserve_memory
        return Capabilities(
            hostname=platform.node(),
            architecture=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            manta=VERSION,
            cores=os.cpu_count() or 1,
            cpu_frequency=frequency.max or frequency.current if frequency else 0.0,
            memory=max(0, psutil.virtual_memory().total - reserved),
            disk=self._disk_free(),
            gpus=self._gpus,
            runners=self._context.runner.names,
            isolation=min(self._context.runner.names, key=rank),
            installs=config.requirements_allow,
            outbound=config.network_allow,
            max_concurrent_tasks=config.max_concurrent_tasks,
            labels=config.labels,
        )

    def _resources(self) -> dict[str, Any]:
        memory = psutil.virtual_memory()
        return {
            "cpu_count": os.cpu_count() or 1,
            "cpu_memory": memory.total,
            "available_memory": memory.available,
            "gpu_available": bool(self._gpus),
            "gpu_memory": sum(gpu.memory for gpu in self._gpus),
            "disk_free": self._disk_free(),
        }

    def _performance(self) -> dict[str, float]:
        disk = os.statvfs(self._context.state.path)
        return {
            "cpu_usage": self._context.load.cpu_usage,
            "memory_usage": psutil.virtual_memory().percent / 100,
            "disk_usage": 1 - disk.f_bavail / disk.f_blocks if disk.f_blocks else 0.0,
        }


def find_gpus() -> tuple[GpuInfo, ...]:
    """Returns the NVIDIA GPUs that the driver reports; none where there is no driver."""
    if not os.path.exists("/dev/nvidiactl"):
        return ()  # without importing what would find nothing
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception as error:  # whatever a driver that does not fit its library raises
        _warn_no_gpu(error)
        return ()
    try:
        handles = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        return tuple(
            GpuInfo(pynvml.nvmlDeviceGetName(h), pynvml.nvmlDeviceGetMemoryInfo(h).total)
            for h in handles
        )
    except pynvml.NVMLError as error:
        _warn_no_gpu(error)
        return ()
    finally:
        pynvml.nvmlShutdown()


def _warn_no_gpu(error: Exception) -> None:
    logging.getLogger(__name__).warning(
        "GPUs are not used: the driver cannot be asked (%s); correct it, or set "
        "containers.gpu_enabled = false",
        error,
    )
