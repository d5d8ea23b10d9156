"""How an actor is addressed, and what is sent to it."""

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
    """A way to one actor, near or far."""

    @property
    def address(self) -> Address: ...

    def tell(self, message: Any) -> None: ...

    def ask(self, message: Any, *, timeout: float) -> Any: ...

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]: ...

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Call `notify` once, at the actor's end or now; returns what calls that off."""


class Origin(Protocol):
    """Who sent the message that is being handled, when it came over a link."""

    @property
    def peer_key(self) -> str: ...

    @property
    def link(self) -> Link: ...

    @property
    def is_revoked(self) -> bool: ...

    def ref(self, path: str, incarnation: int = ANY) -> Ref:
        """An actor that the sender's process has published to us."""


class Envelope:
    """A message and what belongs to it."""

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
        self.deadline = deadline  # on the system's clock; None: as long as the asker waits
