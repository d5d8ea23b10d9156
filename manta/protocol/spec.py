"""A swarm as the SDK compiles it and the manager stores it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from manta.protocol.values import BlobRef, Payload

MAX_PACKAGE_BYTES = 256 * 1024 * 1024
MAX_PACKAGE_FILES = 10_000
"""Limits of a module's package: nodes unpack no more."""

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


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
