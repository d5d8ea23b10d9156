"""Links, which move messages between processes, as the layers above see them.

A *link* carries messages, in order, between this process and one peer whose
public key the handshake has proved. A link that was dialled heals itself: the
same object goes up and down many times. An accepted link lasts for one connection.
Handlers run on the transport's I/O thread: they must be short and never block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from manta.transports.errors import DownReason
    from manta.transports.security.admission import Admission

Buffer = bytes | bytearray | memoryview
Message = Sequence[Buffer]


class Link(Protocol):
    """Messages to and from one authenticated peer."""

    @property
    def peer_key(self) -> str:
        """The peer's public key, 40 characters of Z85: its identity."""

    @property
    def address(self) -> str:
        """The address that was dialled, "" on an accepted link."""

    @property
    def peer_address(self) -> str:
        """The IP address that an accepted link came from, "" where it is not known."""

    @property
    def state(self) -> DownReason | None:
        """None while the link is up, else why it is down."""

    @property
    def peer_version(self) -> str:
        """The peer's version of the protocol, once it refused this side's; else ""."""

    @property
    def is_half_full(self) -> bool:
        """Whether the peer has yet to take half of what it lets this side send."""

    def send(self, message: Message) -> None:
        """Queue a message; thread-safe, never blocks.

        Raises LinkDown when the link is not up, LinkOverflow when the peer's
        window is full, MessageTooLarge when the message can never be sent. What
        was queued is delivered, unless the link goes down.
        """

    def excuse(self, decided: Callable[[], bool]) -> None:
        """Until `decided()`, this side has yet to decide whether to know the peer of an accepted
        link, which is not turned away meanwhile for taking too long as a guest."""

    def close(self) -> None:
        """End the link; a dialled one stops dialling.

        Nothing is received after it; a last `link_down` follows, with CLOSED.
        """


class LinkHandler(Protocol):
    """The owner of links. Called on the I/O thread, never from inside a call that it makes itself.

    An exception is logged and costs the link, and the peer is told PROTOCOL.
    """

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: DownReason) -> None:
        """Also called, once for each change of reason, while a dialled link cannot come up."""

    def received(self, link: Link, message: list[Buffer]) -> None: ...


class Listener(Protocol):
    """A bound address that accepts links."""

    @property
    def address(self) -> str:
        """`tcp://host:port`, with the port that was taken."""

    def links(self, peer_key: str) -> Sequence[Link]:
        """The peer's links that are up."""

    def cut(self, peer_key: str) -> int:
        """Deny the key in the listener's Admission and end its links; returns how many.

        Nothing of the peer is handled, and nothing sent to it, after this returns.
        `allow` or `forget` of the Admission lifts the denial.
        """

    def close(self) -> None: ...


class Transport(Protocol):
    """Makes the links of one process."""

    @property
    def public_key(self) -> str: ...

    def listen(
        self,
        address: str,
        handler: LinkHandler,
        admission: Admission,
        *,
        fd: int | None = None,
    ) -> Listener:
        """Accept links at `tcp://host:port` (port 0 takes a free one).

        `fd` is a TCP socket that already listens; `address` then only names it.
        Raises AddressInUse.
        """

    def dial(self, address: str, server_key: str, handler: LinkHandler) -> Link:
        """Open a link to a server with a known public key; returns at once."""

    def close(self) -> None:
        """Close all links and listeners, within the linger limit."""
