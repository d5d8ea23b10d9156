"""The attempt that this process runs: `World`, `Local` and `Results` speak through it."""

from __future__ import annotations

from _thread import RLock, _local  # importing threading costs each forked attempt a tenth
from typing import TYPE_CHECKING, Any, Protocol

from manta.light.errors import NotInTask

if TYPE_CHECKING:
    from collections.abc import Mapping


class Brief:
    """The attempt that runs here: what the node says of it, where its scratch folder lies, and what
    it counts itself. `manta.node.task_server.outcomes.brief` is the node's part."""

    swarm_id: str
    alias: str
    index: int
    iteration: int
    attempt: int
    task_id: str
    node_id: str
    size: int
    seed: int
    class_name: str | None
    datasets: Mapping[str, str]
    timeout: float | None
    scratch: str
    direct: bool = False
    """What it says to others goes through the plane."""

    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)
        self.collectives = 0
        """How many this attempt has taken part in so far."""
        self.locks: dict[str, RLock] = {}
        """The swarm knows which instance holds a lock; these know which of its threads does."""
        self.node_ids: dict[str, str] = {}
        """By the names that this attempt has used."""
        self.received: dict[tuple[str, str], int] = {}
        """How many messages this attempt has received, by the sender's id and tag."""
        self.receiving: dict[tuple[str, str], bool] = {}
        """Whether one more was asked for that has not been given out."""
        self.mapped: Any = None
        """What it shares with its node's plane, once there is something: `collectives.mapped`."""
        self.is_unsettled = False
        """Has it written what a `barrier` is to follow on, since the last one?"""
        self.left_out: dict[int, str] = {}
        """The ranks that its last collective went on without, and why."""

    @property
    def name(self) -> str:
        """The task's instance, as users see it."""
        return f"{self.alias}.{self.index}"


class Entry:
    """A result that some instance wrote."""

    def __init__(
        self, node_id: str, alias: str, index: int, iteration: int, attempt: int, value: Any
    ) -> None:
        self.node_id = node_id
        self.alias = alias
        self.index = index
        self.iteration = iteration
        self.attempt = attempt
        self.value = value


class Part:
    """What an instance contributed to a collective; its value is MISSING in a barrier."""

    def __init__(self, rank: int, value: Any) -> None:
        self.rank = rank
        self.value = value


class Handover:
    """A value in the form that requests to the plane carry, with the descriptors that go along."""

    def __init__(self, payload: bytes | list[int], fds: tuple[int, ...] = ()) -> None:
        self.payload = payload
        self.fds = fds


class Missing:
    """Stands for a value that is not there, since None is a value."""


MISSING = Missing()


class Context(Protocol):
    """An attempt as its code sees it."""

    @property
    def brief(self) -> Brief: ...

    def call(self, request: str, /, **fields: Any) -> Any:
        """Sends a request to the node and waits for its answer.

        Requests and fields are those of `manta.node.task_server.requests`, in snake case; `value`
        is any value that can be sent. Returns a plain object, a value (or MISSING), or a list of
        Entry or Part.
        """


class Usage:
    """The attempt that is running, if any, and the socket that takes its log records, one in a
    datagram."""

    def __init__(self) -> None:
        self.is_on_node = False
        """Whether this is the process of a task, which has been started by a node."""
        self.context: Context | None = None
        self.log_sink: int | None = None


class Here(_local):
    """Of a thread: what it speaks through in place of the attempt, as within a call of a mesh."""

    context: Context | None = None


usage = Usage()
here = Here()


def current() -> Context:
    """Raises NotInTask."""
    if here.context is not None:
        return here.context
    if usage.context is not None:
        return usage.context
    raise NotInTask(
        "World, Local and Results speak to a node, and this code does not run on one: "
        "start it with `manta run` or deploy it."
    )
