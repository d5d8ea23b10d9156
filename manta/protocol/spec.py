"""A swarm as the SDK compiles it and the manager stores it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from manta.protocol.names import MOST_DESCRIBED
from manta.protocol.values import BlobRef, Payload

MAX_PACKAGE_BYTES = 256 * 1024 * 1024
MAX_PACKAGE_FILES = 10_000
"""Limits of a module's package: nodes unpack no more."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Signed(msgspec.Struct, frozen=True, omit_defaults=True):
    """By whom and when a swarm was signed (`manta.protocol.signed`). `at` is in seconds since the
    epoch, by their clock."""

    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    """The public key: Ed25519, in hexadecimal digits."""
    nonce: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    """Of one deployment."""
    at: float


class SignedOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """What proves that a user has asked for what an order says."""

    signed: Signed
    signature: bytes
    description: str = ""


class ResourceSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one instance needs; sizes in bytes, cpu in cores, isolation at least that level.

    Each of its `gpu` GPUs has `gpu_memory` at least, and is its alone, unless it is `gpu_shared`:
    then others may have the rest of that memory. `labels` are those that its node has to have.
    """

    cpu: float | None = None
    memory: int | None = None
    disk: int | None = None
    gpu: int | None = None
    isolation: str | None = None
    gpu_memory: int | None = None
    gpu_shared: bool = False
    arch: str | None = None
    labels: tuple[tuple[str, str], ...] = ()


class ModuleSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """Code. `package` is None for an image that runs its own entry point."""

    name: Name
    package: BlobRef | None = None
    image: str | None = None
    version: str | None = None
    datasets: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    resources: ResourceSpec | None = None
    outbound: tuple[str, ...] = ()
    """Where it may connect to: `outbound:HOST:PORT` each."""


class Edge(msgspec.Struct, frozen=True, array_like=True):
    """The task starts after the task `alias`: when it FINISHED, or with its first RESULT."""

    alias: Name
    condition: str = "FINISHED"


Collect = str | tuple[Name, ...]
"""Which large results are copied to the manager: "all", none ("references"), or those with these
tags. The others stay on the nodes that made them."""


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """One vertex of the graph; fields as in the SDK's `Task`."""

    alias: Name
    module: Name
    after: tuple[Edge, ...] = ()
    method: str = "all"
    fixed: bool = False
    excepted_ids: tuple[str, ...] | None = None
    specified_ids: tuple[str, ...] | None = None
    maximum: int | float = -1
    replicas: int | None = None
    gpu: bool = False
    network: str | None = None
    class_name: str | None = None
    resources: ResourceSpec | None = None
    datasets: tuple[str, ...] = ()
    priority: int = 0
    timeout: float | None = None
    retries: int = 0
    quorum: float | Literal["alive"] | None = None
    deadline: float | Literal["auto"] | None = None
    on_disconnect: str | None = None
    redundancy: int | None = None
    collect: Collect = "all"
    outbound: tuple[str, ...] = ()
    """As of its module, besides that."""
    meets: str = ""
    """The collective in which all its instances certainly wait for each other; "" if unknown."""
    signature: bytes = b""
    """Of the swarm's `signed`; empty if nobody has signed it."""


class NetworkSpec(msgspec.Struct, frozen=True):
    """`topology` is full, ring, star, torus or edges; `edges` only with the last."""

    name: Name
    topology: str
    edges: tuple[tuple[str, str], ...] = ()


class ScheduleEntry(msgspec.Struct, frozen=True, array_like=True):
    """Tasks that run in parallel; `sequential` starts their instances one after another."""

    aliases: tuple[Name, ...]
    sequential: bool = False


class SwarmSpec(msgspec.Struct, frozen=True, omit_defaults=True):
    """`tasks` are in topological order."""

    name: Name
    tasks: tuple[TaskSpec, ...]
    modules: tuple[ModuleSpec, ...]
    globals: dict[str, Payload] = {}
    networks: tuple[NetworkSpec, ...] = ()
    max_iteration: int | None = None
    seed: int = 0
    schedule: tuple[tuple[ScheduleEntry, ...], ...] = ()
    """By iteration: entries run in order, and only their tasks run; the tasks' `after` is empty.
    The swarm ends with the last iteration, or at max_iteration if that is less."""
    description: Annotated[str, msgspec.Meta(max_length=MOST_DESCRIBED)] = ""
    """What it is for, which owners of nodes are shown."""
    signed: Signed | None = None
    """None if nobody has signed it: an earlier version sent it."""


def datasets_of(task: TaskSpec, module: ModuleSpec) -> tuple[str, ...]:
    """The datasets that the module and the task declare, each once."""
    return tuple(dict.fromkeys((*module.datasets, *task.datasets)))


def outbound_of(task: TaskSpec, module: ModuleSpec) -> tuple[str, ...]:
    """Where the module and the task connect to, each once."""
    return tuple(dict.fromkeys((*module.outbound, *task.outbound)))


def resources_of(task: TaskSpec, module: ModuleSpec) -> ResourceSpec | None:
    return task.resources or module.resources
