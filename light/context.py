"""Which round this process runs: what `World`, `Local` and `Results` speak through."""

from __future__ import annotations

from _thread import RLock  # importing threading costs each forked round a tenth
from typing import TYPE_CHECKING, Any, Protocol

from manta.light.errors import NotInTask

if TYPE_CHECKING:
    from collections.abc import Mapping


class Brief:
    """The round that runs here: what the node says of it (`manta.node.task_server.outcomes.brief`),
    where its scratch folder lies, and what it counts itself."""

    swarm_id: str
    swarm_name: str
    alias: str
    index: int
    iteration: int
    attempt: int
    task_id: str
    node_id: str
    node_alias: str
    size: int
    seed: int
    class_name: str | None
    datasets: Mapping[str, str]
    timeout: float | None
    scratch: str

    def __init__(self, **told: Any) -> None:
        self.__dict__.update(told)
        self.collectives = 0
        """How many this round has taken part in."""
        self.locks: dict[str, RLock] = {}
        """Which of its threads has one of the swarm's locks, which are those of instances."""
        self.node_ids: dict[str, str] = {}
        """By the names that this round has received under."""
        self.received: dict[tuple[str, str], int] = {}
        """How many messages of a node, by its id, and tag this round has received."""
        self.receiving: dict[tuple[str, str], bool] = {}
        """Whether it was asked for one more, which was not given out."""

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
    """What an instance contributed to a collective; MISSING for nothing, as in a barrier."""

    def __init__(self, rank: int, value: Any) -> None:
        self.rank = rank
        self.value = value


class Missing:
    """Stands for a value that is not there, since None is a value."""


MISSING = Missing()


class Context(Protocol):
    """One round, seen from its code."""

    @property
    def brief(self) -> Brief: ...

    def call(self, request: str, /, **fields: Any) -> Any:
        """Ask the node for something; `value` among the fields is any value that can be sent.

        The requests are those of `manta.node.task_server.requests`, in snake case.
        Answers a plain object, a value (or MISSING), or a list of Entry or Part.
        """


class Usage:
    """The round that is running, if one is; `watch` hears of uses while there is none.

    `log_sink` is the socket that takes the round's log records, one a datagram.
    """

    def __init__(self) -> None:
        self.context: Context | None = None
        self.watch: Watch | None = None
        self.log_sink: int | None = None


class Watch(Protocol):
    def __call__(self) -> None:
        """Called when code uses the context while its module is being imported."""


usage = Usage()


def current() -> Context:
    """Raises NotInTask."""
    if usage.context is not None:
        return usage.context
    if usage.watch is not None:
        usage.watch()
    raise NotInTask(
        "World, Local and Results speak to a node, and this code does not run on one: "
        "start it with `manta run` or deploy it."
    )
