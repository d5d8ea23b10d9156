"""What a result came from: attempts, their code and data, and what they had read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from manta.apis.errors import NotFound
from manta.apis.overviews import Overview
from manta.protocol.machine import DatasetUsed
from manta.protocol.names import listed, meant
from manta.protocol.node import GlobalRead, Instance
from manta.protocol.spec import ModuleSpec, SwarmSpec
from manta.protocol.user import ResultItem, SwarmInfo, TaskInfo


class Origin(Overview, frozen=True):
    """One attempt. `digest` is that of the module's package, "" for an image alone; `datasets` are
    what it was given, with the digest and version that its node's owner says; `globals` are those
    that it had read, with their versions, as its node tells them."""

    task_id: str
    alias: str
    index: int
    iteration: int
    attempt: int
    status: str
    node_id: str
    node_alias: str
    module: str
    version: str
    digest: str
    image: str
    datasets: tuple[DatasetUsed, ...]
    globals: tuple[GlobalRead, ...]

    @classmethod
    def of(cls, task: TaskInfo, module: ModuleSpec) -> Origin:
        at, package = task.instance, module.package
        return cls(
            task.task_id,
            *(at.alias, at.index, at.iteration, at.attempt),
            task.status,
            task.node_id,
            task.node_alias,
            module.name,
            module.version or "",
            package.digest if package is not None else "",
            module.image or "",
            task.datasets,
            task.reads,
        )


class Lineage(Overview, frozen=True):
    """Of the results of a tag in an iteration. `made` have written them; `before` are all other
    attempts of the swarm that had begun before these ended, each of which may have told them
    something: by globals, results or messages."""

    swarm_id: str
    name: str
    tag: str
    iteration: int
    made: tuple[Origin, ...]
    before: tuple[Origin, ...]


class Written:
    """Who wrote the results of a tag that count, as they come one by one: of one iteration, or of
    the latest that has some, alone, and without their values."""

    def __init__(self, tag: str, iteration: int | None) -> None:
        self.tag = tag
        self.wanted = iteration
        self.iteration = -1
        """Whose results they are, once there are some."""
        self.by: set[tuple[str, int, int]] = set()
        """Aliases, indices and attempts."""

    def add(self, item: ResultItem) -> None:
        """Takes an item of the feed of results."""
        if not item.counts or item.tag != self.tag or self.wanted not in (None, item.iteration):
            return
        if item.iteration > self.iteration:
            self.iteration, self.by = item.iteration, set()
        if item.iteration == self.iteration:
            self.by.add((item.alias, item.index, item.attempt))


def not_written(swarm: SwarmInfo, written: Written, tags: Iterable[str]) -> NotFound:
    """Says that nobody wrote it; `tags` have results that count."""
    tags = sorted(tags)
    has = f"it has {listed(tags)}" if tags else "it has none that count"
    at = "" if written.wanted is None else f" in iteration {written.wanted}"
    return NotFound(
        f"Swarm {swarm.name!r} ({swarm.swarm_id}) has no result {written.tag!r}{at}: {has}."
        + meant(written.tag, tags)
    )


def lineage(
    swarm: SwarmInfo, spec: SwarmSpec, tasks: Iterable[TaskInfo], written: Written
) -> Lineage:
    """Of what somebody wrote."""
    last = written.iteration
    writers = {
        Instance(swarm.swarm_id, alias, index, last, attempt)
        for alias, index, attempt in written.by
    }
    modules = _modules(spec)
    made, others = list[TaskInfo](), list[TaskInfo]()
    for task in tasks:
        (made if task.instance in writers else others).append(task)
    # Times are the manager's, or limited by it. What has not ended may be told something yet.
    ends = [one.ended_at for one in made]
    until = None if None in ends else max((end for end in ends if end is not None), default=None)
    before = [
        one
        for one in others
        if one.started_at is not None and (until is None or one.started_at <= until)
    ]
    return Lineage(
        swarm.swarm_id,
        swarm.name,
        written.tag,
        last,
        tuple(Origin.of(one, modules[one.instance.alias]) for one in made),
        tuple(Origin.of(one, modules[one.instance.alias]) for one in before),
    )


def _modules(spec: SwarmSpec) -> Mapping[str, ModuleSpec]:
    """By the alias of the task."""
    modules = {module.name: module for module in spec.modules}
    return {task.alias: modules[task.module] for task in spec.tasks}
