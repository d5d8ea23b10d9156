"""Supervised actors, in this process and over links to others; see `docs/actors.md`."""

from manta.actors.actor import Actor
from manta.actors.address import Address
from manta.actors.cell import LocalRef
from manta.actors.clock import Clock, SystemClock
from manta.actors.errors import (
    ActorCrashed,
    ActorDead,
    ActorError,
    AnswerLost,
    AskTimeout,
    InvalidMessage,
    MailboxFull,
    NameTaken,
    Refused,
    StartFailed,
    Unanswered,
    Unreachable,
    WouldDeadlock,
)
from manta.actors.exits import NORMAL, SHUTDOWN, ExitKind, ExitReason
from manta.actors.mailbox import MailboxPolicy, Timer
from manta.actors.refs import Origin, Ref
from manta.actors.registry import PathRef, Registry, TreeNode
from manta.actors.replies import Reply
from manta.actors.signals import ChildExited, Down, Monitor
from manta.actors.specs import (
    AutoShutdown,
    ChildInfo,
    ChildSpec,
    ChildType,
    Phase,
    Restart,
    Strategy,
)
from manta.actors.supervisor import (
    RestartChild,
    StartChild,
    StopChild,
    Supervisor,
    WhichChildren,
)
from manta.actors.system import ActorSystem

__all__ = [
    "NORMAL",
    "SHUTDOWN",
    "Actor",
    "ActorCrashed",
    "ActorDead",
    "ActorError",
    "ActorSystem",
    "Address",
    "AnswerLost",
    "AskTimeout",
    "AutoShutdown",
    "ChildExited",
    "ChildInfo",
    "ChildSpec",
    "ChildType",
    "Clock",
    "Down",
    "ExitKind",
    "ExitReason",
    "InvalidMessage",
    "LocalRef",
    "MailboxFull",
    "MailboxPolicy",
    "Monitor",
    "NameTaken",
    "Origin",
    "PathRef",
    "Phase",
    "Ref",
    "Refused",
    "Registry",
    "Reply",
    "Restart",
    "RestartChild",
    "StartChild",
    "StartFailed",
    "StopChild",
    "Strategy",
    "Supervisor",
    "SystemClock",
    "Timer",
    "TreeNode",
    "Unanswered",
    "Unreachable",
    "WhichChildren",
    "WouldDeadlock",
]
