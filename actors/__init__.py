"""Supervised actors, near and far."""

from manta.actors.actor import Actor, Monitor
from manta.actors.address import Address
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
    Unreachable,
    WouldDeadlock,
)
from manta.actors.mailbox import MailboxPolicy, Timer
from manta.actors.refs import LocalRef, Origin, PathRef, Ref, Reply
from manta.actors.signals import NORMAL, SHUTDOWN, ChildExited, Down, ExitKind, ExitReason
from manta.actors.specs import (
    AutoShutdown,
    ChildSpec,
    ChildType,
    Phase,
    Restart,
    Strategy,
)
from manta.actors.supervisor import (
    ChildInfo,
    RestartChild,
    StartChild,
    StopChild,
    Supervisor,
    WhichChildren,
)
from manta.actors.system import ActorSystem, TreeNode

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
    "Unreachable",
    "WhichChildren",
    "WouldDeadlock",
]
