"""Links to other processes: those dialled from here, and those accepted by a listener."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from manta.actors.address import ANY
from manta.actors.cell import Host
from manta.actors.errors import Unreachable
from manta.actors.remote import Peer, RemoteRef
from manta.actors.shares import Shares
from manta.transports.errors import DownReason, RemoteProtocolError

if TYPE_CHECKING:
    from manta.transports.interface import Buffer, Link
    from manta.transports.security.admission import Admission

log = logging.getLogger("manta.actors")


class Connection:
    """A dialled link. It goes up and down with the network until it is closed."""

    def __init__(
        self,
        host: Host,
        on_state: Callable[[DownReason | None], None] | None,
        published: frozenset[str],
    ) -> None:
        self.peer = Peer(host, published)
        self._on_state = on_state
        self._cut: DownReason | None = None
        self._up = threading.Event()

    @property
    def link(self) -> Link:
        return self.peer.link

    @property
    def state(self) -> DownReason | None:
        """None while the link is up, else why it is down."""
        return self._cut or self.peer.link.state

    def ref(self, path: str, incarnation: int = ANY) -> RemoteRef:
        """An actor that the other side has published."""
        return self.peer.ref(path, incarnation)

    def wait_up(self, timeout: float) -> Connection:
        """Blocks until the link is up, `timeout` real seconds at most, and returns itself.

        Raises Unreachable, which says why it is not up.
        """
        if not self._up.wait(timeout):
            raise Unreachable(
                f"no link to {self.peer.link.address} after {timeout:g} s: {self.state}"
            )
        return self

    def close(self) -> None:
        """Closes the link; pending requests to the other side fail."""
        if self._cut is None:
            self._cut = DownReason.CLOSED
        self._up.clear()
        self.peer.link.close()
        self.peer.down(self._cut)

    def link_up(self, link: Link) -> None:
        self.peer.link = link
        self._up.set()
        self._tell(None)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self.peer.link = link
        self._up.clear()
        self.peer.down(reason)
        if self._cut is None:
            self._tell(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        if self._cut is not None:
            return
        try:
            self.peer.received(message)
        except RemoteProtocolError as error:
            _log_violation(link, error)
            self._cut = DownReason.PROTOCOL
            self.close()
            self._tell(DownReason.PROTOCOL)

    def _tell(self, state: DownReason | None) -> None:
        if self._on_state is None:
            return
        try:
            self._on_state(state)
        except Exception as error:  # on the I/O thread: it must go on
            log.warning("on_state(%s) of a connection failed: %s", state, error, exc_info=error)


class Acceptor:
    """Handles the links of one listener: one Peer each."""

    def __init__(self, host: Host, published: frozenset[str], admission: Admission) -> None:
        self._host = host
        self._published = published
        self._shares = Shares(admission)
        self._peers: dict[Link, Peer] = {}  # of the I/O thread alone

    def link_up(self, link: Link) -> None:
        peer = self._peers[link] = Peer(self._host, self._published, self._shares)
        peer.link = link

    def link_down(self, link: Link, reason: DownReason) -> None:
        peer = self._peers.pop(link, None)
        if peer is not None:
            peer.down(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        peer = self._peers.get(link)
        if peer is None:
            return  # it broke the protocol a moment ago
        try:
            peer.received(message)
        except RemoteProtocolError as error:
            _log_violation(link, error)
            del self._peers[link]
            link.close()
            peer.down(DownReason.PROTOCOL)


def _log_violation(link: Link, error: RemoteProtocolError) -> None:
    log.warning("peer %s broke the protocol and loses its link: %s", link.peer_key, error)
