"""What a node's machine has, and how busy it is. Sizes in bytes."""

from __future__ import annotations

import msgspec

from manta.protocol.isolation import LIMITS

CUDA, ROCM = "cuda", "rocm"


class DatasetInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    size: int
    format: str
    """The file's suffix without its dot, "folder" for a folder; or what its owner says."""
    schema: dict[str, str] = {}
    """The type of each column, as its owner says; so are the rest."""
    rows: int | None = None
    digest: str = ""
    version: str = ""


class DatasetUsed(msgspec.Struct, frozen=True, omit_defaults=True):
    """A dataset that an attempt was given, with the digest and version that its owner says."""

    name: str
    digest: str = ""
    version: str = ""


class GpuInfo(msgspec.Struct, frozen=True, omit_defaults=True):
    """`id` is what its driver calls it; `kind` is "cuda" or "rocm"; `toolkit` is the version of
    CUDA or ROCm that the driver serves."""

    name: str
    memory: int
    id: str = ""
    kind: str = CUDA
    driver: str = ""
    toolkit: str = ""


class Capabilities(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a node finds out about its machine, anew while it runs."""

    hostname: str = ""
    architecture: str = ""
    system: str = ""
    python: str = ""
    manta: str = ""
    cores: int = 1
    """Of which each runs one thread."""
    cpu_frequency: float = 0.0
    """MHz, at most."""
    memory: int = 0
    """That tasks may have."""
    disk: int = 0
    """Free when it started."""
    gpus: tuple[GpuInfo, ...] = ()
    runners: tuple[str, ...] = ()
    """The levels at which it runs modules; see `manta.protocol.isolation`."""
    isolation: str = LIMITS
    """The weakest of them."""
    installs: bool = False
    """Whether it installs what modules require."""
    outbound: tuple[str, ...] = ()
    """Where its owner lets tasks connect to: patterns of `manta.protocol.outbound`."""
    max_concurrent_tasks: int = 1
    datasets: tuple[DatasetInfo, ...] = ()
    labels: dict[str, str] = {}
    processor: str = ""
    physical_cores: int = 0
    disk_size: int = 0
    disk_speed: float = 0.0
    """Bytes a second that are written to where it keeps its state; 0 if that was not measured."""
    scratch: int = 0
    """What a task may keep in its scratch folder; 0 from a node that does not say."""
    engine: str = ""
    """The container engine and its version; "" for none."""
    images: tuple[str, ...] = ()
    """That the engine has."""
    security: tuple[str, ...] = ()
    """What its kernel has to isolate tasks with."""


class Load(msgspec.Struct, frozen=True, omit_defaults=True):
    """The current load. Usage is a fraction from 0 to 1."""

    cpu_usage: float = 0.0
    memory_available: int = 0
    disk_free: int = 0
    tasks_running: int = 0
    tasks_queued: int = 0
    load_average: float = 0.0
    """Threads that ran or waited for a core, in the mean of a minute."""
    gpu_room: tuple[int, ...] = ()
    """Of each GPU, in the order of the capabilities: the memory that no task has reserved."""
    environments: tuple[str, ...] = ()
    """Digests of the requirements that are installed there (`requirements.digest_of`)."""
