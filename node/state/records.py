"""The records in a state folder: identity, status, membership of a cluster."""

from __future__ import annotations

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """`identity.json`. Only the manager's key is needed to connect."""

    manager_key: str
    """CURVE public key, Z85: what the connection pins."""
    node_id: str = ""
    cluster_id: str = ""
    alias: str = ""


class Status(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status.json`. `state` is a DownReason's word, or starting, connected, held, refused,
    stopped, failed."""

    pid: int
    name: str
    state: str
    sentence: str
    manager: str
    alias: str
    since: float
    """When `state` began, in seconds since the epoch."""
    node_id: str = ""
    cluster_id: str = ""
    tasks_running: int = 0
    tasks_queued: int = 0
    notice: str = ""
    """What is wrong, though it is connected."""
    isolation: str = ""
    """The levels at which it runs tasks; "" before that is known."""


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """`member.json`: a node that `manta_node cluster` started."""

    cluster: str
    """The name of its nodes, without the dash and the number."""
    number: int
    config: str
    """The configuration, which all of them share or which is the node's own."""
    is_shared: bool = False
