"""A message from outside, with what its handler needs to know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from manta.actors import Reply
from manta.manager.auth.principals import Principal
from manta.manager.auth.rights import Rule
from manta.manager.directory import Directory, SwarmEntry, cluster_id_of
from manta.manager.store.records import ClusterRecord, NodeRecord

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

    @property
    def cluster_id(self) -> str | None:
        """The target's cluster."""
        match self.target:
            case ClusterRecord() | NodeRecord() | SwarmEntry() as target:
                return cluster_id_of(target)
        return None
