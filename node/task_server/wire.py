"""What else the node accepts from tasks, besides requests; `manta.light.wire` says what it means.

Whatever is not of these types, in bounds, costs the task its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta

from manta.light.wire import MAX_END, MAX_LOG_TEXT, MAX_PACKAGES, MAX_STACKS, BrokenFrame
from manta.node.task_server.requests import (
    Body,
    Count,
    FromTask,
    Number,
    Numbered,
    Text,
    Value,
)
from manta.protocol.spec import Name

Failure = tuple[Name, Text, Text]
"""Kind, sentence, traceback."""
Seconds = Annotated[float, Meta(ge=0)]


# Of the runtime.


class Runtime(FromTask, frozen=True):
    token: Name
    version: int
    pid: int


class Ready(FromTask, frozen=True):
    pass


class Packages(FromTask, frozen=True):
    packages: Annotated[tuple[tuple[Name, str], ...], Meta(max_length=MAX_PACKAGES)]


class Stacks(FromTask, frozen=True):
    number: Number
    text: Annotated[str, Meta(max_length=MAX_STACKS)]
    asked: bool


class Exited(FromTask, frozen=True):
    number: Number
    status: Annotated[int, Meta(ge=-1024, le=1024)]
    end: Annotated[bytes, Meta(max_length=MAX_END)] = b""
    """An End as the attempt's code wrote it; its runtime does not read it."""
    lives_on: bool | None = None
    cut_off: bool = False
    no_memory: bool = False
    """The kernel has killed it, or what it started, as its container took more than it may."""
    moments: Annotated[tuple[Annotated[int, Meta(ge=0)], ...], Meta(max_length=16)] = ()
    """When it passed `shared.PHASES`, in nanoseconds since the epoch; 0: it has not."""
    cpu: Annotated[float, Meta(ge=0)] | None = None
    memory: Number | None = None
    """Seconds and bytes that its process used, which has ended."""


class End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    computing: Seconds
    moving: Seconds
    loading: Seconds = 0.0
    output: Value | None = None
    error: Failure | None = None


# Of an attempt.


class Attempt(FromTask, frozen=True):
    token: Name
    channel: Count = 0


class Memory(Numbered, frozen=True):
    size: Number


FromRuntime = Ready | Packages | Stacks | Exited
FromAttempt = Body | Memory

T = TypeVar("T")


class _Decoder(Generic[T]):
    def __init__(self, type: Any) -> None:
        self._decode: Callable[[bytes], T] = msgspec.msgpack.Decoder(type).decode

    def __call__(self, data: bytes) -> T:
        """Raises BrokenFrame."""
        try:
            return self._decode(data)
        except Exception as error:  # RecursionError, UnicodeDecodeError, ...
            raise BrokenFrame(f"{type(error).__name__}: {error}") from error


first = _Decoder[Runtime | Attempt](Runtime | Attempt)
from_runtime = _Decoder[FromRuntime](FromRuntime)
from_attempt = _Decoder[FromAttempt](FromAttempt)
end = _Decoder[End](End)
log_record = _Decoder[tuple[float, str, str]](
    tuple[float, Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=MAX_LOG_TEXT)]]
)
