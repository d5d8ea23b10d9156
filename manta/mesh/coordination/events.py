"""What the machines of coordination are told, and what all of them want done."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

M_co = TypeVar("M_co", covariant=True)


class Joined(NamedTuple):
    """The mesh counts the peer as alive from now on."""

    peer: str


class Left(NamedTuple):
    """The mesh counts the peer as dead, or it has left. It may join again."""

    peer: str


class Received(NamedTuple, Generic[M_co]):
    sender: str
    message: M_co


class Tick(NamedTuple):
    """It is `due`."""


class Send(NamedTuple, Generic[M_co]):
    """The message may be lost, come twice, or overtake others."""

    peer: str
    message: M_co


class Ignored(NamedTuple):
    """What a peer said can't be true, and had no effect: to be logged."""

    peer: str
    sentence: str
