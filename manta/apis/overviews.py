"""Clusters, nodes, swarms, tasks, users and modules, as the API returns them.

Fields can be read as `overview.field` and as `overview["field"]`. Times are seconds since the
epoch, sizes are bytes, usage is a fraction from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import msgspec

from manta.protocol.clusters import NodeInfo, NodeLinks
from manta.protocol.node import (
    Capabilities,
    DatasetInfo,
    Instance,
    Load,
    TaskError,
    Timings,
)
from manta.protocol.spec import ResourceSpec
from manta.protocol.states import SwarmState
from manta.protocol.user import LogItem, MetricsItem, TaskInfo
from manta.protocol.users import ModuleInfo


class Overview(msgspec.Struct, frozen=True):
    """A record whose fields can be read by name and by key."""

    def __getitem__(self, key: str) -> Any:
        if key in self.keys() or isinstance(getattr(type(self), key, None), property):
            return getattr(self, key)
        raise KeyError(f"{key!r}: there are {', '.join(self.keys())}")

    def __contains__(self, key: object) -> bool:
        return key in self.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the field, or the default if there is none of that name."""
        return getattr(self, key) if key in self.keys() else default

    def keys(self) -> tuple[str, ...]:
        """Returns the names of the fields, so that `dict(overview)` works."""
        return self.__struct_fields__

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        return {key: self[key] for key in self.keys()}

    def _repr_html_(self) -> str:
        from manta.apis import drawing

        return drawing.table(type(self).__name__.removesuffix("Overview"), [self.row()], 0)


class Named(Overview, frozen=True):
    """An overview of something with an id, which is its text."""

    def __str__(self) -> str:
        return str(self["id"])

    def __repr__(self) -> str:
        told = (self.get("name", self.get("alias", self.get("email"))), self.get("status"))
        words = [type(self).__name__.removesuffix("Overview"), str(self)]
        return f"<{' '.join([*words, *(str(word) for word in told if word)])}>"


class _Same(Overview, frozen=True):
    """An overview with the same fields as a message."""

    @classmethod
    def of(cls, info: msgspec.Struct) -> Self:
        return msgspec.convert(info, cls, from_attributes=True)


class ClusterOverview(Named, _Same, frozen=True):
    """`status` is RUNNING or STOPPED; `node_count` counts the nodes that have enrolled."""

    id: str
    name: str
    status: str
    owner_id: str
    node_count: int

    @property
    def cluster_id(self) -> str:
        """The same as `id`."""
        return self.id


class NodeResources(Overview, frozen=True):
    """What the node has and what of it is free. Sizes in bytes."""

    cpu_count: int
    cpu_memory: int
    available_memory: int
    gpu_available: bool
    gpu_memory: int
    disk_free: int


class NodeOverview(Named, frozen=True):
    """`status` is CONNECTED, DISCONNECTED, LOST or DRAINING; `datasets` by name; `notice` says
    what is wrong with it all the same."""

    id: str
    alias: str
    status: str
    cluster_id: str
    resources: NodeResources
    datasets: dict[str, DatasetInfo]
    platform_info: Capabilities
    load: Load
    last_seen: float
    notice: str = ""

    @property
    def node_id(self) -> str:
        """The same as `id`."""
        return self.id

    @classmethod
    def of(cls, info: NodeInfo) -> NodeOverview:
        found, load = info.platform_info, info.load
        return cls(
            id=info.id,
            alias=info.alias,
            status=info.status,
            cluster_id=info.cluster_id,
            resources=NodeResources(
                cpu_count=found.cores,
                cpu_memory=found.memory,
                available_memory=load.memory_available,
                gpu_available=bool(found.gpus),
                gpu_memory=sum(gpu.memory for gpu in found.gpus),
                disk_free=load.disk_free,
            ),
            datasets={dataset.name: dataset for dataset in found.datasets},
            platform_info=found,
            load=load,
            last_seen=info.last_seen,
            notice=info.notice,
        )

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        from manta.console import text

        found = self.platform_info
        return {
            "node": self.alias,
            "status": self.status,
            "tasks": f"{self.load.tasks_running}/{found.max_concurrent_tasks}",
            "cores": found.cores,
            "memory": text.size(found.memory),
            "free": text.size(self.load.memory_available),
            "datasets": ", ".join(sorted(self.datasets)),
            "notice": self.notice,
        }


class NodeLink(Overview, frozen=True):
    """A node's link with another, the peer, as the node sees it. `kind` is "direct" (encrypted,
    over a connection of their own), "local" (nodes of one user on one machine, which share large
    values), "relayed" (as ciphertext, through the manager) or "down". `since` is when it became
    so; `sent` and `received` are bytes since the node's tasks first exchanged something;
    `round_trip` is in seconds, None if it is not known; `error` is why the last attempt at a
    direct link failed."""

    node_id: str
    node: str
    peer_id: str
    peer: str
    kind: str
    since: float
    sent: int
    received: int
    round_trip: float | None
    error: str

    @classmethod
    def all(cls, told: NodeLinks) -> list[NodeLink]:
        """Of what the manager tells of a node."""
        return [
            cls(
                node_id=told.node_id,
                node=told.alias,
                peer_id=one.node_id,
                peer=one.alias,
                kind=one.kind,
                since=one.since,
                sent=one.sent,
                received=one.received,
                round_trip=one.round_trip or None,
                error=one.error,
            )
            for one in told.links
        ]


class SwarmOverview(Named, _Same, frozen=True):
    """`status` is a SwarmState; `iteration` counts from 0, -1 before the first.

    `complete` is False while nodes, after an interruption, have yet to report what they did:
    results, metrics and logs may lack their last seconds.
    """

    swarm_id: str
    name: str
    cluster_id: str
    status: str
    reason: str
    iteration: int
    max_iteration: int | None
    created_at: float
    started_at: float | None
    ended_at: float | None
    task_count: int
    complete: bool = True

    @property
    def id(self) -> str:
        """The same as `swarm_id`."""
        return self.swarm_id

    @property
    def ended(self) -> bool:
        """Whether it is COMPLETED, STOPPED or FAILED; none of these changes again."""
        return self.status in _FINAL

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        most = "" if self.max_iteration is None else f"/{self.max_iteration}"
        return {
            "swarm": self.swarm_id,
            "name": self.name,
            "status": self.status,
            "iterations": f"{self.iteration + 1}{most}",
            "reason": self.reason,
        }


_FINAL = frozenset(state.value for state in SwarmState if state.final)


class TaskOverview(Overview, frozen=True):
    """One attempt of one instance of a task. `status` is an AttemptState.

    `index` numbers the task's instances in an iteration and `attempt` the attempts of one, both
    from 0. `output` is what the code returned, `timings` the seconds that each phase took on the
    node.
    """

    task_id: str
    alias: str
    index: int
    iteration: int
    attempt: int
    status: str
    node_id: str
    node_alias: str
    placed_at: float
    started_at: float | None
    ended_at: float | None
    output: Any
    error: TaskError | None
    timings: Timings | None
    progress: float | None

    @classmethod
    def of(cls, task: TaskInfo, output: Any) -> TaskOverview:
        return cls(
            task.task_id,
            *_place(task.instance),
            task.status,
            task.node_id,
            task.node_alias,
            task.placed_at,
            task.started_at,
            task.ended_at,
            output,
            task.error,
            task.timings,
            task.progress,
        )


class ErrorOverview(Overview, frozen=True):
    """Why an attempt failed; `traceback` shows the task's own code only."""

    alias: str
    index: int
    iteration: int
    attempt: int
    status: str
    node_id: str
    node_alias: str
    kind: str
    sentence: str
    traceback: str
    last_lines: tuple[str, ...]

    @classmethod
    def of(cls, task: TaskInfo, error: TaskError) -> ErrorOverview:
        where = (*_place(task.instance), task.status, task.node_id, task.node_alias)
        return cls(*where, error.kind, error.sentence, error.traceback, error.last_lines)


class LogOverview(Overview, frozen=True):
    """A line that a task logged; `stream` is stdout, stderr or a logging level."""

    at: float
    node_id: str
    node_alias: str
    alias: str
    index: int
    iteration: int
    attempt: int
    stream: str
    text: str

    @classmethod
    def of(cls, item: LogItem) -> LogOverview:
        line = item.line
        return cls(
            line.at, item.node_id, item.node_alias, *_place(line.instance), line.stream, line.text
        )


class MetricsOverview(Overview, frozen=True):
    """Numbers that a task logged with `world.log_metrics`."""

    at: float
    node_id: str
    node_alias: str
    alias: str
    index: int
    iteration: int
    attempt: int
    metrics: dict[str, float]
    step: int | None

    @classmethod
    def of(cls, item: MetricsItem) -> MetricsOverview:
        where = (item.at, item.node_id, item.node_alias, *_place(item.instance))
        return cls(*where, item.metrics, item.step)

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        from manta.console import text

        who = {"iteration": self.iteration, "node": self.node_alias}
        who["task"] = f"{self.alias}.{self.index}"
        return who | {name: text.number(value) for name, value in self.metrics.items()}


class EventOverview(_Same, frozen=True):
    """What happened to a swarm. `kind`: state, iteration, placed, started, finished, failed,
    quorum (a task is done without all of its instances), retried, lost, progress."""

    at: float
    kind: str
    sentence: str
    iteration: int
    alias: str
    index: int
    node_alias: str
    fraction: float | None

    def row(self) -> dict[str, Any]:
        """Returns what a notebook shows of it, by column."""
        return {"iteration": self.iteration, "kind": self.kind, "sentence": self.sentence}


def _place(instance: Instance) -> tuple[str, int, int, int]:
    return instance.alias, instance.index, instance.iteration, instance.attempt


class GrantOverview(_Same, frozen=True):
    """A role in a cluster."""

    cluster_id: str
    cluster_name: str
    role: str


class UserOverview(Named, _Same, frozen=True):
    """A user. `admin` means every right in every cluster."""

    id: str
    email: str
    admin: bool
    created_at: float
    grants: tuple[GrantOverview, ...]

    @property
    def user_id(self) -> str:
        """The same as `id`."""
        return self.id


class RoleOverview(_Same, frozen=True):
    """A role. `builtin` ones (owner, operator, researcher, viewer) cannot be changed."""

    name: str
    rights: tuple[str, ...]
    builtin: bool


class QuotaOverview(_Same, frozen=True):
    """A quota: `used` is None where nothing is counted, `limit` where there is none; `source` says
    where the limit was set, `counts` what is counted."""

    name: str
    used: int | None
    limit: int | None
    source: str
    counts: str


class ShareOverview(_Same, frozen=True):
    """A cluster that a module is shared with."""

    cluster_id: str
    cluster_name: str


class ModuleOverview(Named, frozen=True):
    """A registered module. `digest` and `size` (bytes) describe its package, and are None and 0
    for an image without a program; `version` is None for a module without one. `updated_at` is
    when its content was last sent. `shared` lists the clusters it is shared with, as far as you
    see them; a module that is shared with none is its owner's alone."""

    id: str
    name: str
    version: str | None
    digest: str | None
    size: int
    image: str | None
    datasets: tuple[str, ...]
    requirements: tuple[str, ...]
    resources: ResourceSpec | None
    owner_id: str
    created_at: float
    updated_at: float
    shared: tuple[ShareOverview, ...] = ()

    @property
    def module_id(self) -> str:
        """The same as `id`."""
        return self.id

    @classmethod
    def of(cls, info: ModuleInfo) -> ModuleOverview:
        spec, package = info.spec, info.spec.package
        return cls(
            info.id,
            spec.name,
            spec.version,
            package.digest if package else None,
            package.size if package else 0,
            spec.image,
            spec.datasets,
            spec.requirements,
            spec.resources,
            info.owner_id,
            info.created_at,
            info.updated_at,
            tuple(ShareOverview(one.cluster_id, one.cluster_name) for one in info.shared),
        )


# What names a thing in a call: its overview, its id, a unique beginning of that, or its name.
ClusterId = str | ClusterOverview
NodeId = str | NodeOverview
SwarmId = str | SwarmOverview
ModuleId = str | ModuleOverview
UserId = str | UserOverview
