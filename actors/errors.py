"""Every error that this package raises, split by whose fault it is."""

from __future__ import annotations

from typing import Any


class ActorError(Exception):
    """Root of this package's errors."""


class MailboxFull(ActorError):
    """The receiver's mailbox is at its bound: nothing was queued."""


class ActorDead(ActorError):
    """The address's incarnation is gone; its successor, if any, has another one."""


class StartFailed(ActorDead):
    """The actor did not come up: its constructor or on_start raised."""


class NameTaken(ActorError):
    """Another actor lives at that path."""


class WouldDeadlock(ActorError):
    """A blocking ask of oneself, or of one of one's supervisors, who may be waiting for us."""


class ActorCrashed(ActorDead):
    """The actor crashed while it handled this ask."""


class Unreachable(ActorError):
    """The message could not be handed to the remote peer."""


class AnswerLost(Unreachable):
    """The link went down after the request was handed over: it may have been carried out."""


class AskTimeout(ActorError, TimeoutError):
    """No answer within the time given; the request may have been carried out."""


class InvalidMessage(ActorError):
    """The receiver does not accept this message; over the wire, it costs the sender its link."""


class Refused(ActorError):
    """An actor's considered no to a request: crosses the wire as it is.

    `code` is stable and machine-readable, `sentence` says what was wrong,
    where, and the remedy; `data` holds plain msgpack values.
    """

    def __init__(self, code: str, sentence: str, data: dict[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.data = data or {}
