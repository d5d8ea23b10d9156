"""The errors of this package, in one tree."""

from __future__ import annotations

from typing import Any


class ActorError(Exception):
    """Root of this package's errors."""


class MailboxFull(ActorError):
    """The receiver's mailbox is full; the message was not queued."""


class ActorDead(ActorError):
    """The actor has ended; its successor, if any, is another incarnation."""


class StartFailed(ActorDead):
    """The actor did not start: its constructor or on_start raised, or took too long."""


class NameTaken(ActorError):
    """Another actor lives at the path."""


class WouldDeadlock(ActorError):
    """An actor may not block on itself, or on a supervisor of its own, which may wait for it."""


class Unanswered(ActorDead):
    """The actor ended while it had this ask, which may have been carried out."""


class ActorCrashed(Unanswered):
    """The actor crashed while it handled this ask."""


class Unreachable(ActorError):
    """The message could not be handed to the remote peer."""


class AnswerLost(Unreachable):
    """The link went down before the answer came; the request may have been carried out."""


class AskTimeout(ActorError, TimeoutError):
    """No answer within the time given; the request may have been carried out."""


class InvalidMessage(ActorError):
    """The receiver does not accept the message; a peer that sends one loses its link."""


class Refused(ActorError):
    """An actor turns a request down. Crosses the wire as it is.

    `code` is stable and for programs; `sentence` says what is wrong, where, and
    the remedy; `data` holds plain msgpack values.
    """

    def __init__(self, code: str, sentence: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.data = data or {}
