"""What the parts of the Gateway are given: what they share, and with each message a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from manta.actors import Actor, Reply
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Rule
from manta.manager.auth.roles import Roles
from manta.manager.context import Context
from manta.manager.directory import Directory, SwarmEntry, cluster_id_of
from manta.manager.gateway.forwarder import Forwarder
from manta.manager.gateway.listeners import Listeners
from manta.manager.store.actor import Writer
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.transports.interface import Link
from manta.transports.security.strangers import source_of

M_co = TypeVar("M_co", covariant=True)
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Request(Generic[M_co, T_co]):
    """A message whose sender meets the rule of its route."""

    message: M_co
    who: Principal
    rule: Rule
    target: T_co
    """What the message is about."""
    seen: Directory
    """What the sender sees of the platform."""
    defer: Callable[[], Reply]
    """Returns the reply, to be answered later; the handler then returns None."""
    link: Link | None = None
    """On which it came."""

    @property
    def source(self) -> str:
        """Where its sender connected from: an IPv4 address, or the network of an IPv6 address."""
        return source_of(self.link.peer_address) if self.link is not None else ""

    def excuse(self, reply: Reply) -> None:
        """A token or password is being checked: until that is answered, the guest who gave it is
        not cut for taking too long."""
        if self.link is not None:
            self.link.excuse(lambda: reply.done)

    @property
    def cluster_id(self) -> str | None:
        """The target's cluster."""
        match self.target:
            case ClusterRecord() | NodeRecord() | SwarmEntry() as target:
                return cluster_id_of(target)
        return None


@dataclass(frozen=True)
class Shared:
    """What all parts work with."""

    actor: Actor
    context: Context
    writer: Writer
    forwarder: Forwarder
    listeners: Listeners
    directory: Directory
    roles: Roles


class Part:
    """Handles some of the Gateway's messages."""

    def __init__(self, shared: Shared) -> None:
        self._actor = shared.actor
        self._context = shared.context
        self._writer = shared.writer
        self._forwarder = shared.forwarder
        self._listeners = shared.listeners
        self._directory = shared.directory
        self._roles = shared.roles
