"""The words of a desk: what is asked of it, what it knows of a call, what its plane does for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from manta.node.plane.collectives import messages
from manta.node.plane.collectives.gathering import Gathering
from manta.node.plane.collectives.meeting import Meeting
from manta.node.plane.collectives.messages import CallName, Places
from manta.node.plane.parcels import Parts
from manta.node.plane.requests import CallCollective
from manta.protocol.base import Instance
from manta.transports.collectives.calls import Kind
from manta.transports.collectives.messages import Message
from manta.transports.exchange.kept import KeptCall
from manta.transports.exchange.letters import Value
from manta.transports.exchange.messages import Parcel


class Ask(Protocol):
    """A call of an attempt, to be answered once."""

    at: Instance
    body: Any
    value: Value | None
    refusal: str
    """Why there is no room for its value, if so."""
    nodes: int
    """How many nodes a call that brings a value must have, at least."""
    connection: int
    """Over which it came: a number that no other one has at the same time."""

    def reply(self, told: dict[str, Any], fds: list[int]) -> None: ...

    def fail(self, kind: str, sentence: str) -> None: ...


@dataclass(eq=False)
class Wait:
    """A call that has no answer yet."""

    ask: Ask
    name: CallName
    body: CallCollective
    deadline: float
    is_parked: bool = True
    """It has not become a contribution yet."""
    settles: int = 0
    """The round of `Settling` that it waits for, if it does."""

    @property
    def rank(self) -> int:
        return self.ask.at.index

    @property
    def passes(self) -> bool:
        """Does the member only give, and go on?"""
        is_root = self.rank == self.body.root
        return self.body.kind is (Kind.SCATTER if is_root else Kind.GATHER)


@dataclass(eq=False)
class Call:
    """A meeting, and what belongs to it beside what it is itself."""

    name: CallName
    meeting: Meeting
    nodes: tuple[str, ...]
    """By peer of its placement: their ids."""
    peers: Mapping[str, int]
    """The same, by id."""
    me: int
    """The peer that this plane is."""
    places: Places
    gone: set[str] = field(default_factory=set)
    """Nodes whose planes have begun anew since, and forgot what their members gave."""
    left: set[str] = field(default_factory=set)
    """Nodes that are no more, and of which nothing more is needed."""
    told: dict[str, list[Message]] = field(default_factory=dict)
    """By node: what was said to it, for as long as it goes on."""
    gathering: Gathering | None = None
    needs_all: bool = False
    """It is a gather whose root, which is here, needs all."""
    lacks: bool = False
    """It is such a one, and went without some."""
    enough: int | None = None
    """Of a gather whose root is here: how many values are."""
    passed: Places | None = None
    """Where others have begun it anew last, and were told that this plane takes no part: what they
    said there was heard by nobody."""
    announced: Counter[str] = field(default_factory=Counter)
    """By node: bytes that it said of it, until a member here makes the call."""
    had: set[int] = field(default_factory=set)
    """Members here that had what they called for before it was begun anew, and give to it no more
    unless they call again."""
    is_joined: bool = False
    """A member here makes it."""
    is_over: bool = False
    """It is closed or has failed."""
    is_followed_up: bool = False
    """It is over, and what waited for that was looked at."""
    looked_at: tuple[int, int] = (0, 0)
    """How many had come, in which roster, when it was last seen whether it can be complete."""

    @property
    def own(self) -> tuple[int, ...]:
        """The ranks on this plane."""
        return self.meeting.placement.ranks[self.me]

    def ranks_on(self, node: str) -> tuple[int, ...]:
        """Of a node that has a part in it."""
        return self.meeting.placement.ranks[self.peers[node]]

    def suffice(self, enough: int) -> None:
        self.enough = enough
        self.meeting.suffice(enough)


class Mover(Protocol):
    """Bulk with one peer; `progress` and `done` come on the plane's thread. `progress` has how many
    bytes have come while more are to come; `done` has why it failed, nothing if all has come, and
    None if the other end gave it up, or does not expect it."""

    def expect(
        self,
        transfer: bytes,
        memory: memoryview,
        progress: Callable[[int], None],
        done: Callable[[str | None], None],
        adopted: Callable[[int], None] | None,
    ) -> None:
        """Where `adopted` is given, memory of the other end that nobody can change any more may
        take the place of this: it then gets the descriptor, before `progress`."""

    def send(
        self,
        transfer: bytes,
        memory: memoryview,
        done: Callable[[str | None], None],
        memfd: int,
        at: int,
    ) -> None:
        """`memfd` has the same bytes from its byte `at` on, unless it is -1."""

    def ready(self, transfer: bytes, upto: int) -> None: ...

    def cancel(self, transfer: bytes) -> None: ...

    def refuse(self, transfer: bytes) -> None: ...


class Outside(Protocol):
    """What a desk has its plane do."""

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None: ...

    def is_up(self, swarm_id: str, peer: str) -> bool: ...

    def has_room(self, swarm_id: str, peer: str) -> bool:
        """Whether the link is up and takes more: what can wait is to wait for that."""

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        """The peer breaks the protocol, or does not listen."""

    def settle(self, at: Instance) -> None:
        """`Desk.settled` is to follow, once the manager has applied what the attempt has written by
        now."""

    def move(self, swarm_id: str, peer: str) -> Mover: ...

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        """Has a job done on another thread; `then` on this one."""

    def on_disk(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        """The same for a job that may wait for the disk, on a thread that does nothing else."""

    def release(self, value: Parcel) -> None: ...

    def keep(self, at: Instance, items: tuple[KeptCall, ...], then: Callable[[], object]) -> None:
        """As of `lasting.Outside`."""

    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        """A value that becomes a file when what names it is kept. Raises NoRoom."""

    def read(self, value: bytes | Parcel, into: memoryview, at: int) -> None:
        """Bytes of a value that was kept, from `at` on. On any thread. Raises OSError."""

    def own(self, parcel: bytes) -> int | None:
        """Its descriptor."""

    def memfd(self, parcel: bytes) -> int:
        """Its descriptor if it is in memory, else -1."""

    def clock(self) -> float: ...
