"""What crosses a link: headers of one closed union, with the user's message inside.

A message is one frame. Its body is decoded only when the header has named the
actor, whose `accepts` says what may come. Both decoders validate.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from manta.actors.errors import (
    ActorCrashed,
    ActorDead,
    ActorError,
    AskTimeout,
    InvalidMessage,
    MailboxFull,
    Refused,
    Unanswered,
)
from manta.actors.exits import ExitKind, ExitReason
from manta.actors.replies import LONGEST

PATH_MAX = 512

Id = Annotated[int, Meta(ge=0, lt=2**62)]
Path = Annotated[str, Meta(min_length=1, max_length=PATH_MAX)]
Seconds = Annotated[float, Meta(ge=0, le=LONGEST)]
Word = Annotated[str, Meta(max_length=64)]
Sentence = Annotated[str, Meta(max_length=4096)]


class _Wire(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
    pass


class Tell(_Wire, frozen=True, tag=0):
    """A message that gets no answer. It expires after `ttl` seconds."""

    path: Path
    incarnation: Id
    ttl: Seconds
    body: Raw


class Ask(_Wire, frozen=True, tag=1):
    """A message that gets an Answer or a Failure with its id. It expires after `ttl` seconds."""

    id: Id
    path: Path
    incarnation: Id
    ttl: Seconds
    body: Raw


class Answer(_Wire, frozen=True, tag=2):
    """What the handler returned."""

    id: Id
    body: Raw


class Failure(_Wire, frozen=True, tag=3):
    """The error instead of an answer; of kind `refused`, it has a code and data."""

    id: Id
    kind: Word
    sentence: Sentence
    code: Word = ""
    data: dict[str, Any] = {}


class Undelivered(_Wire, frozen=True, tag=4):
    """A Tell was not handled."""

    path: Path
    kind: Word
    sentence: Sentence


class Watch(_Wire, frozen=True, tag=5):
    """A request for a Gone when the actor ends, or at once if it has."""

    id: Id
    path: Path
    incarnation: Id


class Unwatch(_Wire, frozen=True, tag=6):
    """The Watch with this id is withdrawn."""

    id: Id


class Gone(_Wire, frozen=True, tag=7):
    """A watched actor has ended."""

    id: Id
    kind: ExitKind
    sentence: Sentence


Wire = Tell | Ask | Answer | Failure | Undelivered | Watch | Unwatch | Gone

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Wire).decode


_ERRORS: dict[str, type[ActorError]] = {  # in order, the special ones first
    "full": MailboxFull,
    "crashed": ActorCrashed,
    "unanswered": Unanswered,
    "dead": ActorDead,
    "expired": AskTimeout,
    "invalid": InvalidMessage,
}


def failure(id: int, error: BaseException) -> Failure:
    """Returns the Failure that stands for an error."""
    if isinstance(error, Refused):
        sentence, data = error.sentence[:4096], error.data
        return Failure(id, "refused", sentence, error.code[:64], data)
    for kind, cls in _ERRORS.items():
        if isinstance(error, cls):
            return Failure(id, kind, str(error)[:4096])
    return Failure(id, "crashed", f"{type(error).__name__} where the answer was made")


def error_of(failure: Failure) -> ActorError:
    """Returns the error that a Failure stands for."""
    if failure.kind == "refused":
        return Refused(failure.code, failure.sentence, failure.data)
    return _ERRORS.get(failure.kind, ActorDead)(failure.sentence)


def gone(id: int, reason: ExitReason) -> Gone:
    """Returns the Gone for a reason; of an error it tells the type only."""
    sentence = reason.sentence
    if reason.error is not None:
        sentence = type(reason.error).__name__
    return Gone(id, reason.kind, sentence[:4096])
