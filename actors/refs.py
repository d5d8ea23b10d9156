"""What every reference to an actor can do, and what travels to a mailbox."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol

from manta.actors.address import ANY, Address
from manta.actors.exits import ExitReason
from manta.actors.replies import Reply

if TYPE_CHECKING:
    from manta.transports.interface import Link


class Ref(Protocol):
    """A reference to an actor of this process or of another."""

    @property
    def address(self) -> Address: ...

    def tell(self, message: Any) -> None: ...

    def ask(self, message: Any, *, timeout: float) -> Any: ...

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]: ...

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Calls `notify` once, when the actor ends, or now if it has; returns what undoes this."""


class Origin(Protocol):
    """The peer that sent a message over a link."""

    @property
    def peer_key(self) -> str: ...

    @property
    def link(self) -> Link: ...

    @property
    def is_revoked(self) -> bool:
        """Whether this process has cut the peer off since."""

    def ref(self, path: str, incarnation: int = ANY) -> Ref:
        """An actor that the peer has published to this process."""


class Envelope:
    """A message in a mailbox, with the reply to it, its origin and its deadline."""

    __slots__ = ("deadline", "message", "origin", "reply")

    def __init__(
        self,
        message: Any,
        reply: Reply | None = None,
        origin: Origin | None = None,
        deadline: float | None = None,
    ) -> None:
        self.message = message
        self.reply = reply
        self.origin = origin
        self.deadline = deadline  # by the system's clock; None: it does not expire
