"""Distributed and federated algorithms on machines that people own.

Names are imported when they are asked for, so that each costs only what it needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not typing's: it would be the first thing that every command waits for
if TYPE_CHECKING:
    from manta.apis import AsyncUserAPI as AsyncUserAPI
    from manta.apis import Condition as Condition
    from manta.apis import Module as Module
    from manta.apis import Results as Results
    from manta.apis import Swarm as Swarm
    from manta.apis import Task as Task
    from manta.apis import UserAPI as UserAPI
    from manta.apis.task import task as task
    from manta.cli.local.cluster import LocalCluster as LocalCluster
    from manta.mesh.aio import AsyncMesh as AsyncMesh
    from manta.mesh.mesh import Mesh as Mesh

__all__ = [
    "AsyncMesh",
    "AsyncUserAPI",
    "Condition",
    "LocalCluster",
    "Mesh",
    "Module",
    "Results",
    "Swarm",
    "Task",
    "UserAPI",
    "task",
]


def __getattr__(name: str) -> object:
    if name == "Mesh":
        from manta.mesh import mesh

        return mesh.Mesh
    if name == "AsyncMesh":
        from manta.mesh import aio

        return aio.AsyncMesh
    if name == "LocalCluster":
        from manta.cli.local.cluster import LocalCluster

        return LocalCluster
    if name == "task":  # manta.apis.task is the module
        from manta.apis.task import task

        return task
    if name in __all__:
        from manta import apis

        return getattr(apis, name)
    if name == "__version__":
        from manta.protocol import version

        return version.VERSION
    raise AttributeError(f"module 'manta' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
