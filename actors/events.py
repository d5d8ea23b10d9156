"""What the supervision machine is told, and what it wants done."""

from __future__ import annotations

from dataclasses import dataclass

from manta.actors.signals import SHUTDOWN, ExitReason
from manta.actors.specs import ChildSpec

# --- events ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Boot:
    """Start the children."""


@dataclass(frozen=True, slots=True)
class Started:
    """The child is ready."""

    id: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The child's current incarnation is gone."""

    id: str
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Overdue:
    """The child had its time to stop."""

    id: str


@dataclass(frozen=True, slots=True)
class RetryDue:
    """What Retry asked for came back through the mailbox."""

    id: str


@dataclass(frozen=True, slots=True)
class Add:
    """Add a child and start it."""

    spec: ChildSpec
    token: object = None


@dataclass(frozen=True, slots=True)
class Revive:
    """Start a child that ended: OTP's restart_child."""

    id: str
    token: object = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Stop a child and forget it: OTP's terminate_child, then delete_child."""

    id: str
    token: object = None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop the children, last first, and exit."""

    reason: ExitReason = SHUTDOWN


Event = Boot | Started | Exited | Overdue | RetryDue | Add | Revive | Remove | Shutdown

# --- actions --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """Start the child; answer Started or Exited."""

    spec: ChildSpec
    restarting: bool = False


@dataclass(frozen=True, slots=True)
class Halt:
    """Tell the child to stop; answer Exited, or Overdue once `seconds` are over."""

    id: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Abandon:
    """Declare the child dead though its thread may run on; answer Exited."""

    id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Send RetryDue through the mailbox, so that a shutdown can overtake it."""

    id: str


@dataclass(frozen=True, slots=True)
class Answer:
    """To who asked with this token: done, or a refusal's code and sentence."""

    token: object
    id: str
    code: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Booted:
    """All children run."""


@dataclass(frozen=True, slots=True)
class Exit:
    """All children are down: the supervisor's end."""

    reason: ExitReason


Action = Start | Halt | Abandon | Retry | Answer | Booted | Exit
