"""Checks the machine: Python, disk, memory, descriptors, container engine, GPUs."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from manta.console.extras import missing
from manta.console.text import size
from manta.node.doctor.report import Finding, fault, ok, warning
from manta.node.errors import LaunchError
from manta.node.isolation import landlock
from manta.node.isolation.limits import UNLIMITED
from manta.node.runners import selection
from manta.protocol.isolation import BWRAP, DOCKER, GVISOR, LANDLOCK, LIMITS

if TYPE_CHECKING:
    from manta.node.config import NodeConfig

FEW_BYTES = 1024**3
"""Bytes of disk or memory below which a node gets into trouble soon."""
FEW_DESCRIPTORS = 4096


def examine(config: NodeConfig | None, state: Path) -> Iterator[Finding]:
    yield _python()
    yield _disk(state)
    if not missing("node"):
        yield _memory(config)
    yield _descriptors()
    yield _runner(config, state)
    yield _limits(config)
    if config is None or config.gpu_enabled:
        yield _gpus()


def _python() -> Finding:
    lacking = missing("node")
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if lacking:
        return fault(
            "python",
            f"{here} lacks {', '.join(lacking)}.",
            f"{sys.executable} -m pip install 'manta-swarm[node]'",
        )
    if sys.platform != "linux":
        return fault("python", f"{here}: nodes run on Linux.", "Use a machine with Linux.")
    return ok("python", f"{here}, with all packages that a node needs.")


def _disk(state: Path) -> Finding:
    folder = existing(state)
    free = shutil.disk_usage(folder).free
    said = f"{size(free)} free for state and results in {folder}."
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return fault(
            "disk", f"{folder} is mounted read-only.", "Mount it writable, or set MANTA_HOME."
        )
    if not os.access(folder, os.W_OK):
        remedy = f"Run `chown {os.geteuid()} {folder}`, or set MANTA_HOME."
        return fault("disk", f"{folder} cannot be written by this user.", remedy)
    if os.statvfs(folder).f_flag & os.ST_NOEXEC:
        return warning(
            "disk",
            f"{folder} is mounted noexec: what modules require cannot be installed there.",
            "Mount it without noexec, or set MANTA_HOME.",
        )
    if free < FEW_BYTES:
        return warning("disk", f"Only {said}", "Make room, or move MANTA_HOME to another disk.")
    return ok("disk", said)


def existing(path: Path) -> Path:
    """Returns the path, or the nearest folder above it that exists."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def _memory(config: NodeConfig | None) -> Finding:
    import psutil

    found = psutil.virtual_memory()
    reserved = 0 if config is None else config.reserve_memory
    said = f"{size(found.available)} of {size(found.total)} available"
    if reserved >= found.total:
        return fault(
            "memory",
            f"resources.reserve_memory_mb keeps {size(reserved)} from tasks, and there are only "
            f"{size(found.total)}.",
            "Lower it.",
        )
    if found.available - reserved < FEW_BYTES:
        return warning(
            "memory", f"Only {said}, {size(reserved)} of it reserved.", "End what takes the rest."
        )
    return ok("memory", f"{said}, {size(reserved)} of it reserved.")


def _descriptors() -> Finding:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS:
        return warning(
            "descriptors",
            f"A process may hold {hard} files and sockets open.",
            f"Raise the hard limit to {FEW_DESCRIPTORS} or more (ulimit -Hn, LimitNOFILE=).",
        )
    return ok("descriptors", f"A process may hold {hard} files and sockets open.")


def _runner(config: NodeConfig | None, state: Path) -> Finding:
    """Whether tasks can be isolated as the configuration wants it; without one, whether at all."""
    if config is None:
        found = selection.local([])
        if found.level == BWRAP:
            return ok("isolation", "Tasks can run in sandboxes (bwrap).")
        containers, problem = selection.engine((GVISOR, DOCKER))
        if containers is not None:
            return ok("isolation", f"Tasks can run in containers ({containers.level}).")
        if found.level == LANDLOCK:
            return _confined(f"Tasks can run confined by the kernel (landlock): {found.why}.")
        return warning(
            "isolation",
            f"Tasks can only run as plain processes: {found.why}, and {problem}.",
            f"{_REMEDY}, or set containers.allow_unsandboxed = true to accept it.",
        )
    try:
        choice = selection.choose(config, state)
    except LaunchError as error:
        wrong, _, remedy = str(error).removeprefix(f"{config.path}: ").rpartition(": ")
        return fault("isolation", f"{wrong}.", remedy[:1].upper() + remedy[1:])
    levels = choice.levels
    words = f"Tasks are isolated by {' (images) and '.join(levels)}"
    told = f'{words}; containers.runner is "{config.runner}".'
    if choice.containers is not None and choice.why:
        told += f" They are not by a stronger level: {choice.why}."
    if choice.local is not None and choice.local.level == LANDLOCK and choice.local.why:
        told += f" They are not by a stronger level: {choice.local.why}."
    if choice.local is not None and choice.local.level == LIMITS and config.runner != LIMITS:
        plain = f"Plain processes can do all that this user can: {choice.local.why}."
        return warning("isolation", f"{told} {plain}", _REMEDY)
    return _confined(told) if LANDLOCK in levels else ok("isolation", told)


def _limits(config: NodeConfig | None) -> Finding:
    """What a task is held to whatever isolates it, and to what not."""
    kept = "" if config is None else f"A task's scratch folder takes up to {size(config.scratch)}. "
    return ok("limits", f"{kept}{UNLIMITED}")


def _confined(told: str) -> Finding:
    gaps = landlock.gaps(landlock.available())
    if not gaps:
        return ok("isolation", told)
    return warning(
        "isolation", f"{told} This kernel leaves open: {'; '.join(gaps)}.", "Update to Linux 6.12."
    )


_REMEDY = "apt-get install bubblewrap, or start a container engine and let this user use it"


def _gpus() -> Finding:
    if os.path.exists("/dev/nvidiactl") and find_spec("pynvml") is None:
        return warning(
            "gpu",
            "There is an NVIDIA driver, but not the package nvidia-ml-py.",
            f"{sys.executable} -m pip install nvidia-ml-py, or set containers.gpu_enabled = false.",
        )
    from manta.node.capabilities import gpus

    found = gpus.find()
    if found.divided:
        return warning(
            "gpu",
            f"Divided into parts (MIG), which tasks are not given: {', '.join(found.divided)}.",
            "Let a GPU be whole (nvidia-smi -i NUMBER -mig 0) to have tasks get it.",
        )
    if found.trouble:
        return warning(
            "gpu",
            f"GPUs of NVIDIA's are not used: {found.trouble}.",
            "Correct it, or set containers.gpu_enabled = false.",
        )
    told = (f"{gpu.info.name}, {size(gpu.info.memory)}" for gpu in found.gpus)
    return ok("gpu", f"{'; '.join(told)}." if found.gpus else "No GPU of NVIDIA's or AMD's.")
