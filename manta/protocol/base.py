"""What all messages have in common."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Union

import msgspec

from manta.protocol.names import MAX_NAME

Seconds = float
Named = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
"""What users name a thing by: a name, an id, the beginning of one, an e-mail address."""
Cursor = Annotated[str, msgspec.Meta(max_length=1000)]
"""How far somebody has read; "" for nothing."""
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]
"""A number of things, or the place of one among them. Larger ones no JSON holds exactly, and some
are not taken by what counts in machine words."""
Version = Annotated[int, msgspec.Meta(ge=-1, le=1 << 53)]
"""-1 where there is none yet."""
SECRET = {"secret": True}
"""Marks what goes into no log, as `extra` of a field's type."""
MAX_PASSWORD = 1024
Password = Annotated[str, msgspec.Meta(max_length=MAX_PASSWORD, extra=SECRET)]
Wait = Annotated[float, msgspec.Meta(ge=0, le=60)]
"""Seconds after which a long poll is answered in any case."""


class Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    """Root of the messages; `reply` is the type of a request's answer."""

    reply: ClassVar[type[msgspec.Struct] | None] = None


def requests(replies: dict[type[Message], type[Message]]) -> Any:
    """Gives each request the type of its answer; returns the union of the requests."""
    for request, reply in replies.items():
        request.reply = reply
    return Union[tuple(replies)]  # noqa: UP007


class Ok(Message, frozen=True):
    """Done; nothing to add."""


class Instance(msgspec.Struct, frozen=True, array_like=True, order=True):
    """`index` counts the instances of a task in an iteration, `attempt` the attempts at one."""

    swarm_id: str
    alias: str
    index: int
    iteration: int
    attempt: int = 0

    def __str__(self) -> str:
        retry = f" (attempt {self.attempt + 1})" if self.attempt else ""
        return f"{self.alias}.{self.index} in iteration {self.iteration}{retry}"
