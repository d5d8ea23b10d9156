"""What is known of one attempt, and where its threads stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from manta.apis.checks import text
from manta.apis.errors import InvalidArgument, NotFound
from manta.apis.overviews import Overview, TaskOverview
from manta.protocol.bundle import Moment, Usage
from manta.protocol.names import meant
from manta.protocol.node import Timings
from manta.protocol.task_ids import endings, split
from manta.protocol.user import LONGEST_TASK, TaskInfo, TaskStacks

TaskId = str | TaskOverview
"""An overview; or an id, `SWARM.ALIAS.INDEX.ITERATION.ATTEMPT`, of which a swarm's unique beginning
and the task's alias are enough."""


_OF_ERROR = ("kind", "sentence", "traceback", "last_lines")
_OF_BUNDLE = (
    *("isolation", "exit_code", "out_of_memory", "usage", "image", "python"),
    *("timeline", "stacks", "redacted"),
)


class TaskExplanation(Overview, frozen=True):
    """An attempt, and the bundle that its node has kept of it if it failed.

    Times are seconds since the epoch, by the manager's clock, in `timeline` by the node's. `status`
    is an AttemptState. `kind`, `sentence`, `traceback` and `last_lines` say what went wrong, "" and
    () if nothing did; `exit_code` is negative for a signal, None where the process went on or it is
    not known; `usage` has what its processes used at most and might use. `packages` are versions
    by names, as the attempt's Python had them; `stacks` are those of its threads before it was
    ended, if it ran out of time. `redacted` names what the node's owner holds back; `has_bundle` is
    False where a node kept nothing: the attempt did not fail, or not there.
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
    timings: Timings | None
    kind: str = ""
    sentence: str = ""
    traceback: str = ""
    last_lines: tuple[str, ...] = ()
    has_bundle: bool = False
    isolation: str = ""
    exit_code: int | None = None
    out_of_memory: bool = False
    usage: Usage = Usage()
    image: str = ""
    python: str = ""
    packages: dict[str, str] = {}
    timeline: tuple[Moment, ...] = ()
    stacks: str = ""
    redacted: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: TaskInfo, packages: object) -> TaskExplanation:
        """`packages` is what the bundle's value holds."""
        at, error = task.instance, task.error
        told: dict[str, Any] = {}
        if error is not None:
            told = {name: getattr(error, name) for name in _OF_ERROR}
            if (bundle := error.bundle) is not None:
                told |= {name: getattr(bundle, name) for name in _OF_BUNDLE}
                told["has_bundle"] = True
        return cls(
            task.task_id,
            *(at.alias, at.index, at.iteration, at.attempt),
            task.status,
            task.node_id,
            task.node_alias,
            task.placed_at,
            task.started_at,
            task.ended_at,
            task.timings,
            packages=_packages(packages),
            **told,
        )


class StacksOverview(Overview, frozen=True):
    """The stacks of an attempt's processes and their threads, as they were a moment ago."""

    alias: str
    index: int
    iteration: int
    attempt: int
    node_alias: str
    text: str

    @classmethod
    def of(cls, told: TaskStacks) -> StacksOverview:
        at = told.instance
        return cls(at.alias, at.index, at.iteration, at.attempt, told.node_alias, told.text)


def task_name(task: TaskId) -> tuple[str, str]:
    """The swarm and the task in it that are meant. Raises InvalidArgument."""
    name = text("The task", getattr(task, "task_id", task), LONGEST_TASK)
    swarm, rest = split(name)
    if not (swarm and rest):
        raise InvalidArgument(
            f"The task is {name!r}: give its swarm's id and its alias, SWARM.ALIAS, or its whole "
            "id, SWARM.ALIAS.INDEX.ITERATION.ATTEMPT."
        )
    return swarm, rest


def meant_of(tasks: Iterable[TaskInfo], swarm: str, rest: str) -> TaskInfo:
    """The latest of the attempts that are meant, one that failed before all others. Raises
    NotFound."""
    there = list(tasks)
    found = [task for task in there if rest in endings(task.instance)]
    if not found:
        aliases = sorted({task.instance.alias for task in there})
        has = f"it has run {', '.join(aliases[:10])}" if aliases else "it has run none yet"
        raise NotFound(f"Swarm {swarm} has no task {rest!r}: {has}." + meant(rest, aliases))
    failed = [task for task in found if task.error is not None]
    return max(failed or found, key=lambda task: (task.instance.iteration, task.placed_at))


def _packages(value: object) -> dict[str, str]:
    """A node may have written anything."""
    if not isinstance(value, dict):
        return {}
    return {str(name): str(version) for name, version in value.items()}
