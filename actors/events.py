"""What the supervision machine is told, and what it wants done."""

from __future__ import annotations

import msgspec

from manta.actors.exits import SHUTDOWN, ExitReason
from manta.actors.specs import ChildSpec

# --- events ---------------------------------------------------------------------------


class Boot(msgspec.Struct, frozen=True):
    """Start the children."""


class Started(msgspec.Struct, frozen=True):
    """The child is ready."""

    id: str


class Exited(msgspec.Struct, frozen=True):
    """The child's current incarnation is gone."""

    id: str
    reason: ExitReason


class Overdue(msgspec.Struct, frozen=True):
    """The child had its time to stop."""

    id: str


class RetryDue(msgspec.Struct, frozen=True):
    """What Retry asked for came back through the mailbox."""

    id: str


class Add(msgspec.Struct, frozen=True):
    """Add a child and start it."""

    spec: ChildSpec
    token: object = None


class Revive(msgspec.Struct, frozen=True):
    """Start a child that ended: OTP's restart_child."""

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
    """Start the child; answer Started or Exited."""

    spec: ChildSpec
    restarting: bool = False


class Halt(msgspec.Struct, frozen=True):
    """Tell the child to stop; answer Exited, or Overdue once `seconds` are over."""

    id: str
    seconds: float


class Abandon(msgspec.Struct, frozen=True):
    """Declare the child dead though its thread may run on; answer Exited."""

    id: str


class Retry(msgspec.Struct, frozen=True):
    """Send RetryDue through the mailbox, so that a shutdown can overtake it."""

    id: str


class Answer(msgspec.Struct, frozen=True):
    """To who asked with this token: done, or a refusal's code and sentence."""

    token: object
    id: str
    code: str = ""
    sentence: str = ""


class Booted(msgspec.Struct, frozen=True):
    """All children run."""


class Exit(msgspec.Struct, frozen=True):
    """All children are down: the supervisor's end."""

    reason: ExitReason


Action = Start | Halt | Abandon | Retry | Answer | Booted | Exit
