"""What a key asks before it is a node's: who it is here, and to become one.

All of it may come from strangers, on the manager's port for nodes.
"""

from __future__ import annotations

from typing import Any

from manta.protocol.base import Message, Named, Ok, Seconds, requests
from manta.protocol.spec import Name
from manta.protocol.tokens import TokenText


class Enroll(Message, frozen=True):
    """From an unknown key, which the token makes the key of a node."""

    token: TokenText
    alias: Name
    id_mode: Named = "hardware"
    hardware_id: Named = ""


class Inquire(Message, frozen=True):
    """Asks what the manager knows of the sender's key, known or not; changes nothing."""


class Standing(Message, frozen=True):
    node_id: str
    """The node of the key that asked; "" for an unknown or removed one."""
    removed: bool
    wall: Seconds
    """The manager's clock, since the epoch."""
    version: str
    nodes: str
    """Its address for nodes, as are `users` and `bulk`; the host is as the manager sees it."""
    users: str
    bulk: str


class ExamineToken(Message, frozen=True):
    """Would the token admit the sender's key? Answered by Ok or a refusal; it is not used up."""

    token: TokenText


class Enrolled(Message, frozen=True):
    node_id: str
    cluster_id: str
    alias: str


EnrolmentRequest: Any = requests({Enroll: Enrolled, Inquire: Standing, ExamineToken: Ok})
