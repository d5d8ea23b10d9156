"""The events that the supervision machine handles, and the actions that it returns."""

from __future__ import annotations

import msgspec

from manta.actors.exits import SHUTDOWN, ExitReason
from manta.actors.specs import ChildSpec

# --- events ---------------------------------------------------------------------------


class Boot(msgspec.Struct, frozen=True):
    """Start the children."""


class Started(msgspec.Struct, frozen=True):
    """The child has started."""

    id: str


class Exited(msgspec.Struct, frozen=True):
    """The child's current incarnation has ended."""

    id: str
    reason: ExitReason


class Overdue(msgspec.Struct, frozen=True):
    """The child's time to stop is over."""

    id: str


class RetryDue(msgspec.Struct, frozen=True):
    """The RetryDue that Retry asked for has come through the mailbox."""

    id: str


class Add(msgspec.Struct, frozen=True):
    """Add a child and start it."""

    spec: ChildSpec
    token: object = None


class Revive(msgspec.Struct, frozen=True):
    """Start a child that has ended: OTP's restart_child."""

    id: str
    token: object = None


class Remove(msgspec.Struct, frozen=True):
    """Stop a child and forget it: OTP's terminate_child, then delete_child."""

    id: str
    token: object = None


class Shutdown(msgspec.Struct, frozen=True):
    """Stop the children, last first, and exit."""

    reason: ExitReason = SHUTDOWN


Event = Boot | Started | Exited | Overdue | RetryDue | Add | Revive | Remove | Shutdown

# --- actions --------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True):
    """Start the child; report Started or Exited."""

    spec: ChildSpec
    restarting: bool = False


class Halt(msgspec.Struct, frozen=True):
    """Stop the child; report Exited, or Overdue when it has not ended after `seconds`."""

    id: str
    seconds: float


class Abandon(msgspec.Struct, frozen=True):
    """Declare the child dead, though its thread may run on; report Exited."""

    id: str


class Retry(msgspec.Struct, frozen=True):
    """Send RetryDue through the mailbox, so that a shutdown can overtake it."""

    id: str


class Answer(msgspec.Struct, frozen=True):
    """Answer the event with this token: done, or refused with code and sentence."""

    token: object
    id: str
    code: str = ""
    sentence: str = ""


class Booted(msgspec.Struct, frozen=True):
    """All children run: the supervisor has started."""


class Exit(msgspec.Struct, frozen=True):
    """All children are down: end the supervisor."""

    reason: ExitReason


Action = Start | Halt | Abandon | Retry | Answer | Booted | Exit
