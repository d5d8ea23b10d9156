"""A bound ROUTER and the links that it accepted.

Every message carries the key that CURVE proved, as its User-Id, and it is compared
each time: a routing id is only a name that a peer may choose. zmq cannot disconnect
a peer, so one that is cut off loses its TCP connection instead.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import zmq

from manta.transports import frames
from manta.transports.errors import DownReason, RemoteProtocolError, VersionMismatch
from manta.transports.frames import Bye, Kind
from manta.transports.security.admission import Admission, Standing
from manta.transports.security.routing_ids import is_harmless
from manta.transports.zeromq.connections import (
    GUEST_BYTES,
    MONITORED,
    Breach,
    Connection,
    Connections,
    IntakeOptions,
)
from manta.transports.zeromq.intake import FRAME, wire_bytes
from manta.transports.zeromq.links import (
    BYE,
    NOBLOCK,
    SNDMORE_NOBLOCK,
    LinkOptions,
    LockedSocket,
    ZmqLink,
    fd_of,
    read,
    readable,
    send_part,
)
from manta.transports.zeromq.sockets import parse_event, stop_monitor

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.interface import Buffer, LinkHandler
    from manta.transports.security.zap import ZapServer
    from manta.transports.zeromq.io_thread import IoThread
    from manta.transports.zeromq.sockets import Socket, SocketFactory
    from manta.transports.zeromq.tcp import TcpConnection

CUT_TIMEOUT = 10.0  # seconds that `cut` waits for the I/O thread
_BYE_DELAY = 0.2  # seconds from a BYE to the end of the connection
_MONITORED = int(MONITORED | zmq.EVENT_CLOSED)
_UNBIND_TIMEOUT = 0.2  # seconds
_PROBES = (0.001, 0.01, 0.2)  # seconds after a disconnection event, which comes before the end

_log = logging.getLogger(__name__)


class AcceptedLink(ZmqLink):
    """The listening end of a link; it lasts for one connection."""

    def __init__(
        self,
        listener: ZmqListener,
        routing_id: bytes,
        peer_key: str,
        connection: Connection,
    ) -> None:
        super().__init__(
            listener.io, listener.lock, peer_key, listener.handler, listener.link_options
        )
        self.routing_id = routing_id
        self.connection = connection
        self.tcp, self.intake = connection.tcp, connection.intake
        self.peer_address = connection.tcp.host
        self._listener = listener
        self._socket = listener

    def close(self) -> None:
        self._end(DownReason.CLOSED, Bye.CLOSING)

    def excuse(self, decided: Callable[[], bool]) -> None:
        self.connection.decided = decided

    def _transmit(self, encoded: list[Buffer]) -> None:
        socket = self._listener.socket
        if socket is None:
            raise zmq.ZMQError(zmq.EHOSTUNREACH)
        # Only this part can fail: with MANDATORY, zmq takes all of the message or nothing.
        send_part(socket, self.routing_id, SNDMORE_NOBLOCK)
        if len(encoded) == 1:
            send_part(socket, encoded[0], NOBLOCK)
        else:
            socket.send_multipart(encoded, NOBLOCK)

    def _connection_lost(self, lost: LockedSocket) -> None:
        self._end(DownReason.LOST)

    # --- on the I/O thread, but for `close` ---------------------------------------------------

    def greet(self, hello: frames.Hello) -> None:
        """Answer the peer's HELLO: the link is up, unless the peer is gone already."""
        self._agree(hello)
        if self._send_frame(self._hello()):
            self._notify_up()

    def is_up_for(self, key: object) -> bool:
        """Is the link up, and is this its peer's key?"""
        if self.state is not None:
            return False
        if key == self.peer_key:
            return True
        _log.warning("another key than %r uses its routing id: refused", self)
        return False

    def take(self, parts: list[zmq.Frame]) -> None:
        """Handle a message, whose first part is the routing id."""
        if len(parts) == 2:
            single = parts[1].bytes
            size = len(single) + FRAME
            self.intake.read += size
            if size <= GUEST_BYTES and self._take_single(single):
                return
        else:
            size = wire_bytes(map(len, parts[1:]))
            self.intake.read += size
        try:
            if size > GUEST_BYTES and self._listener.is_guest(self.peer_key):
                raise RemoteProtocolError(f"{size} bytes from a guest, {GUEST_BYTES} are allowed")
            head, message = read(parts, 1, self._options.limits)
            if head.kind == BYE:
                self._on_bye(frames.decode_bye(head))
            else:
                self._take(head, message)
        except RemoteProtocolError as error:
            self._violated(error)

    def _on_bye(self, reason: Bye) -> None:
        if reason is Bye.PROTOCOL:
            _log.warning("%r says that this side broke the protocol", self)
            self._end(DownReason.PROTOCOL)
        else:
            self._end(DownReason.CLOSED)

    def probe(self) -> None:
        """End the link if its connection is gone."""
        if not self._ended and not self.connection.tcp.is_open:
            self._listener.drain_all()  # a BYE may be waiting
            self._end(DownReason.LOST)

    def revoke(self) -> None:
        """End the link at once: no BYE, and what zmq still holds is dropped."""
        self._end(DownReason.REVOKED)
        self.connection.tcp.kill()

    def turn_away(self) -> None:
        """End the link of one that is too many, or whose time is over."""
        self._give_up(DownReason.CLOSED, Bye.CLOSING)

    def _violated(self, error: RemoteProtocolError) -> None:
        if not isinstance(error, VersionMismatch):
            self._listener.offended(self.peer_key)
        super()._violated(error)

    def _give_up(self, reason: DownReason, bye: Bye | None = None) -> None:
        self._end(reason, bye)
        if bye is not None:
            self._listener.close_after_bye(self.routing_id, self.connection.tcp)
        else:
            self.connection.tcp.kill()

    def _end(self, reason: DownReason, bye: Bye | None = None) -> None:
        with self._lock:
            if self._ended:
                return
            if bye is not None:
                try:
                    self._transmit([frames.encode_bye(bye)])
                except zmq.ZMQError as error:
                    _log.debug("no BYE to %r: %s", self, error)
                self._listener.sent()
            was_up = self.state is None
            self._ended = True
            self.state = reason
            self._backlog.clear()
        if was_up:
            self._notify_down(reason)
        self._io.call(partial(self._listener.forget, self))


class ZmqListener(LockedSocket):
    """Accepts links at one address."""

    def __init__(
        self,
        io: IoThread,
        factory: SocketFactory,
        zap: ZapServer,
        handler: LinkHandler,
        admission: Admission,
        options: LinkOptions,
        domain: str,
        forget: Callable[[ZmqListener], None],
    ) -> None:
        super().__init__(io, threading.Lock(), options.limits)
        self.handler = handler
        self.link_options = options
        self.address = ""
        self._factory = factory
        self._zap = zap
        self._admission = admission
        self._domain = domain
        self._forget = forget
        self._monitor: Socket | None = None
        self._links: dict[bytes, AcceptedLink] = {}
        self._closing: set[bytes] = set()

    def open(self, address: str, fd: int | None) -> None:
        """Bind, on any thread. Raises AddressInUse and LocalTransportError."""
        self._zap.register(self._domain, self._admission)
        try:
            self.socket = self._factory.server(zmq.ROUTER, self._domain)
            self._monitor = self.socket.get_monitor_socket(_MONITORED)
            self._monitor.linger = 0
            self.address = self._factory.bind(self.socket, address, fd=fd)
            options, handshake = self.link_options, self._factory.options.handshake / 1000
            intake = IntakeOptions(options.bounds, handshake=handshake, hello=options.hello)
            self._connections = Connections(self._admission, intake, self._end, self.address)
        except BaseException:
            self._close_sockets(0)
            raise
        self.io.call(self._register)

    def links(self, peer_key: str) -> list[AcceptedLink]:
        def those_up() -> list[AcceptedLink]:
            links = self._links.values()
            return [link for link in links if link.peer_key == peer_key and link.state is None]

        return self.io.run(those_up, CUT_TIMEOUT)

    def cut(self, peer_key: str) -> int:
        def cut() -> int:
            # Here no message comes in between, which would end its link uncounted.
            self._admission.deny(peer_key)
            links = self.links(peer_key)
            for link in links:
                link.revoke()
            for connection in self._connections.of_key(peer_key):
                connection.end()
            return sum(link.state is DownReason.REVOKED for link in links)

        try:
            return self.io.run(cut, CUT_TIMEOUT)
        finally:
            self._admission.deny(peer_key)  # whatever keeps that thread

    def close(self) -> None:
        """Close all links and stop listening."""
        if self.socket is not None:
            self.io.run(self.close_now, CUT_TIMEOUT)

    def is_guest(self, key: str) -> bool:
        return self._admission.standing(key) is not Standing.KNOWN

    def offended(self, key: str) -> None:
        self._admission.offended(key)

    # --- on the I/O thread -------------------------------------------------------------------

    def close_now(self) -> None:
        if self.socket is None:
            return
        for link in list(self._links.values()):
            link.close()
        self.io.remove_reader(fd_of(self.socket))
        if self._monitor is not None:
            self.io.remove_reader(fd_of(self._monitor))
            self._unbind(self.socket, self._monitor)
        self._close_sockets(None)
        self._forget(self)

    def _unbind(self, socket: Socket, monitor: Socket) -> None:
        """Unbind, and wait until zmq has freed the port."""
        with self.lock:
            socket.unbind(self.address)
        deadline = time.monotonic() + _UNBIND_TIMEOUT
        while (left := deadline - time.monotonic()) > 0 and monitor.poll(int(left * 1000) + 1):
            event, _ = parse_event(monitor.recv_multipart(NOBLOCK))
            if event == zmq.EVENT_CLOSED:
                return
        _log.info("%s is not free yet", self.address)

    def tick(self, passed: float) -> None:
        for link in list(self._links.values()):
            link.tick(passed)

    def look(self, passed: float) -> None:
        """End the connections that send too much, too slowly, or nothing, and strangers in time."""
        self._connections.look(passed, self.drained)

    def _end(self, connection: Connection, breach: Breach | None) -> None:
        """End a connection for what it did, or with None because it has to go."""
        link = self._links.get(connection.routing_id)
        if link is not None and link.state is not None:
            link = None
        if breach is not None and breach.is_own and connection.key:
            self.offended(connection.key)
        if breach is None and link is not None:
            link.turn_away()
        elif breach is not None and link is not None:
            link.breached(breach.why)
        else:
            if breach is not None and connection.key:
                _log.warning("peer %s loses its connection: %s", connection.key, breach.why)
            connection.end()

    def forget(self, link: AcceptedLink) -> None:
        if self._links.get(link.routing_id) is link:
            del self._links[link.routing_id]
        if link.connection.routing_id == link.routing_id:  # else another has its descriptor
            self._connections.unserved(link.connection)

    def close_after_bye(self, routing_id: bytes, tcp: TcpConnection) -> None:
        """Ignore a connection, and end it once its BYE has had time to leave."""

        def end() -> None:
            self._closing.discard(routing_id)
            tcp.kill()

        self._closing.add(routing_id)
        self.io.call_later(_BYE_DELAY, end)

    def arrived(self, parts: list[zmq.Frame]) -> None:
        name = parts[0]
        routing_id = name.bytes
        try:
            key = name.get("User-Id")
        except zmq.ZMQError:
            key = ""  # impossible behind CURVE, and refused all the same
        denied = self._admission.denies(str(key))
        link = self._links.get(routing_id)
        if link is not None and link.is_up_for(key):
            if denied:
                link.revoke()
            else:
                link.take(parts)
        else:
            self._without_link(routing_id, str(key), denied, parts)

    def _without_link(
        self, routing_id: bytes, key: str, denied: bool, parts: list[zmq.Frame]
    ) -> None:
        """Handle a message on a connection that has no link, or no longer has one."""
        if routing_id in self._closing:
            return
        connection = self._connections.of(parts[0])
        if connection is None or connection.ended:
            return  # it is gone
        if denied or not key:
            connection.end()
            return
        try:
            head, _ = read(parts, 1, self.link_options.limits)
            self._first_message(routing_id, key, head, connection)
        except RemoteProtocolError as error:
            _log.warning("peer %s loses its connection: %s", key, error)
            bye = Bye.VERSION if isinstance(error, VersionMismatch) else Bye.PROTOCOL
            if bye is Bye.PROTOCOL:
                self.offended(key)
            self._send_bye(routing_id, bye, connection)

    def _first_message(
        self, routing_id: bytes, key: str, head: frames.Head, connection: Connection
    ) -> None:
        """Open a link if the message is a HELLO. Raises RemoteProtocolError."""
        if head.kind == Kind.HELLO:
            if not is_harmless(routing_id):
                # It chose none, or one like libzmq's, and was answered too soon: it may dial again.
                self._send_bye(routing_id, Bye.NO_LINK, connection)
                return
            if routing_id in self._links:
                raise RemoteProtocolError("a second HELLO on one connection")
            hello = frames.decode_hello(head)
            if not self._connections.heard(connection, key):
                raise RemoteProtocolError("it said too much before HELLO")
            link = AcceptedLink(self, routing_id, key, connection)
            self._links[routing_id] = link
            link.greet(hello)
        elif head.kind != Kind.BYE:
            # This side gave the link up, and the peer does not know.
            self._send_bye(routing_id, Bye.NO_LINK, connection)

    def _send_bye(self, routing_id: bytes, bye: Bye, connection: Connection) -> None:
        with self.lock:
            if self.socket is not None:
                try:
                    self.socket.send_multipart([routing_id, frames.encode_bye(bye)], NOBLOCK)
                except zmq.ZMQError as error:
                    _log.debug("no BYE to a peer without a link: %s", error)
                self.sent()
        self.close_after_bye(routing_id, connection.tcp)

    def _register(self) -> None:
        if self.socket is None or self._monitor is None:
            return
        self.io.add_reader(fd_of(self.socket), self.drain)
        self.io.add_reader(fd_of(self._monitor), self._drain_monitor)
        self.drain()  # the descriptors do not report what came before
        self._drain_monitor()

    def _drain_monitor(self) -> None:
        if self._monitor is None:
            return
        for connection in self._connections.observe(self._monitor):
            link = self._links.get(connection.routing_id)
            if link is not None:
                for delay in _PROBES:
                    self.io.call_later(delay, link.probe)
        if readable(self._monitor):
            self.io.call(self._drain_monitor)  # after messages have had their turn

    def _close_sockets(self, linger: int | None) -> None:
        with self.lock:
            socket, self.socket = self.socket, None
        if socket is not None:
            if self._monitor is not None:
                stop_monitor(socket, self._monitor)
                self._monitor = None
            socket.close(linger)
        self._zap.unregister(self._domain)
