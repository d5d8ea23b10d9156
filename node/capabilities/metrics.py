"""The machine's capabilities and its load."""

from __future__ import annotations

import os
import platform
import shutil
import threading
from concurrent.futures import Future
from typing import Any

import msgspec
import psutil

from manta.actors import Actor
from manta.node.capabilities import disk, gpus, machine
from manta.node.runners import engine
from manta.node.shared.addresses import ROOT
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import GpusFound
from manta.protocol.isolation import DOCKER, rank
from manta.protocol.node import Capabilities, Load
from manta.protocol.version import VERSION

SAMPLE_EVERY = 2.0
QUIET = 10.0
"""Seconds after the start at which the disk's speed is measured, if it is not known."""


class Describe(msgspec.Struct, frozen=True):
    """Looks at the machine anew. Answered with Capabilities, without datasets."""


class ReadResources(msgspec.Struct, frozen=True):
    """Answered with the dict of `Local.get_resources`."""


class ReadPerformance(msgspec.Struct, frozen=True):
    """Answered with the dict of `Local.get_performance_metrics`."""


class _Sample(msgspec.Struct, frozen=True):
    pass


class _MeasureDisk(msgspec.Struct, frozen=True):
    pass


class Metrics(Actor):
    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._gpus = gpus.Watcher()
        self._disk = self._disk_free()
        self._disk_speed = disk.kept(context.state.path)
        frequency = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
        self._frequency = frequency.max or frequency.current if frequency else 0.0

    def on_start(self) -> None:
        self._find_gpus()
        self._sample()
        if not self._disk_speed:
            self.after(QUIET, _MeasureDisk())

    def receive(self, message: Any) -> Any:
        match message:
            case _Sample():
                self._sample()
                return None
            case _MeasureDisk():
                self._measure_disk()
                return None
            case Describe():
                self._find_gpus()
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
            load_average=round(os.getloadavg()[0], 2),
        )
        self._context.check_storage(self)
        self.after(SAMPLE_EVERY, _Sample())

    def _disk_free(self) -> int:
        return shutil.disk_usage(self._context.state.path).free

    def _find_gpus(self) -> None:
        """Before anybody is told of them, the root is: it gives them out."""
        context = self._context
        found = self._gpus.find() if context.config.gpu_enabled else ()
        if found != context.gpus:
            context.gpus = found
            self.notify(ROOT, GpusFound())

    def _measure_disk(self) -> None:
        """On a thread of its own: a disk may take long."""
        measured: Future[float] = Future()

        def run() -> None:
            try:
                measured.set_result(disk.measure(self._context.state.path))
            except OSError as error:
                measured.set_exception(error)

        def done(speed: Any, error: BaseException | None) -> None:
            if error is not None:
                self.log.info("the disk's speed could not be measured: %s", error)
            else:
                self._disk_speed = speed

        self.pipe(measured, done)
        threading.Thread(target=run, name="manta-disk", daemon=True).start()

    def _describe(self) -> Capabilities:
        context, config = self._context, self._context.config
        names = context.runner.names
        version, images = engine.described() if DOCKER in names else ("", ())
        return Capabilities(
            hostname=platform.node(),
            architecture=platform.machine(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            manta=VERSION,
            cores=os.cpu_count() or 1,
            cpu_frequency=self._frequency,
            memory=max(0, psutil.virtual_memory().total - config.reserve_memory),
            disk=self._disk,
            gpus=tuple(gpu.info for gpu in context.gpus),
            runners=names,
            isolation=min(names, key=rank),
            installs=config.requirements_allow,
            outbound=config.network_allow,
            max_concurrent_tasks=config.max_concurrent_tasks,
            labels=config.labels,
            processor=machine.processor(),
            physical_cores=psutil.cpu_count(logical=False) or 0,
            disk_size=shutil.disk_usage(context.state.path).total,
            disk_speed=self._disk_speed,
            scratch=config.scratch,
            engine=version,
            images=images,
            security=machine.security(),
        )

    def _resources(self) -> dict[str, Any]:
        memory = psutil.virtual_memory()
        return {
            "cpu_count": os.cpu_count() or 1,
            "cpu_memory": memory.total,
            "available_memory": memory.available,
            "gpu_available": bool(self._context.gpus),
            "gpu_memory": sum(gpu.info.memory for gpu in self._context.gpus),
            "disk_free": self._disk_free(),
        }

    def _performance(self) -> dict[str, float]:
        disk = os.statvfs(self._context.state.path)
        return {
            "cpu_usage": self._context.load.cpu_usage,
            "memory_usage": psutil.virtual_memory().percent / 100,
            "disk_usage": 1 - disk.f_bavail / disk.f_blocks if disk.f_blocks else 0.0,
        }
