"""The one place where zmq contexts and sockets are made and get their options.

Every wait ends and every queue is bounded. A server socket is made only where a
live ZAP handler answers for its domain: CURVE alone admits anybody.
"""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

import zmq

from manta.transports.addresses import join_address, resolve, split_address
from manta.transports.errors import AddressInUse, LocalTransportError
from manta.transports.security.keys import KeyPair, check_key
from manta.transports.security.routing_ids import new_routing_id, seed
from manta.transports.security.zap import ZapServer

CURVE_OVERHEAD = 64  # bytes that CURVE adds to a frame (RFC 26: 33), and some
# Milliseconds to the second attempt of a socket that should make only one. With -1, libzmq would
# drop what has arrived as soon as the connection ends.
NEVER = 3_600_000
_ZERO_COPY_RECV = 10  # a context option that pyzmq has no name for
_MOST_EVENTS = 10_000  # of a monitor that is stopped; libzmq keeps some thousands

_EVENT = struct.Struct("=Hi")

Context = zmq.Context[zmq.Socket[bytes]]
Socket = zmq.Socket[bytes]


def new_context(io_threads: int = 1) -> Context:
    """A small frame is copied from the buffer of 8 KiB in which it came: else one that is held
    would hold all of it."""
    context: Context = zmq.Context(io_threads)
    context.set(_ZERO_COPY_RECV, 0)
    return context


def _option(default: int, *names: int) -> Any:
    return field(default=default, metadata={"zmq": names})


@dataclass(frozen=True)
class SocketOptions:
    """Times in milliseconds, sizes in bytes, high-water marks in messages."""

    linger: int = _option(1000, zmq.LINGER)
    send_timeout: int = _option(1000, zmq.SNDTIMEO)
    handshake: int = _option(5000, zmq.HANDSHAKE_IVL)
    connect_timeout: int = _option(3000, zmq.CONNECT_TIMEOUT)
    heartbeat: int = _option(2000, zmq.HEARTBEAT_IVL)
    heartbeat_timeout: int = _option(5000, zmq.HEARTBEAT_TIMEOUT, zmq.HEARTBEAT_TTL)
    # libzmq adds up to as much again at random; NEVER: not by itself
    reconnect: int = _option(100, zmq.RECONNECT_IVL)
    reconnect_max: int = _option(2000, zmq.RECONNECT_IVL_MAX)
    send_hwm: int = _option(1000, zmq.SNDHWM)
    receive_hwm: int = _option(1000, zmq.RCVHWM)
    backlog: int = _option(512, zmq.BACKLOG)  # connections that wait to be accepted
    frame_bytes: int = _option(4 * 1024 * 1024)  # of a frame before encryption


class SocketFactory:
    """Makes the sockets of one key pair in one context."""

    def __init__(
        self,
        context: Context,
        keys: KeyPair,
        *,
        zap: ZapServer | None = None,
        options: SocketOptions | None = None,
    ) -> None:
        self.context = context
        self.options = options or SocketOptions()
        self._keys = keys
        self._zap = zap

    def server(self, kind: int, domain: str) -> Socket:
        """A CURVE server socket, to be bound with `bind`.

        Raises LocalTransportError unless a live ZAP handler answers for `domain`.
        """
        self._check_zap(domain)
        socket = self._make(kind)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        return socket

    def client(self, kind: int, server_key: str) -> Socket:
        """A CURVE client socket that connects only to the holder of `server_key`."""
        check_key(server_key, "server's public key")
        socket = self._make(kind)
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, server_key)
        socket.setsockopt(zmq.ROUTING_ID, new_routing_id())
        return socket

    def connect(self, socket: Socket, address: str) -> None:
        """Connect to an IP address; returns at once. (libzmq would block to resolve a name.)"""
        host, port = split_address(address)
        socket.setsockopt(zmq.IPV6, int(":" in host))
        try:
            socket.connect(join_address(host, port))
        except zmq.ZMQError as error:
            raise LocalTransportError(f"cannot dial {address}: {error.strerror}") from error

    def bind(self, socket: Socket, address: str, *, fd: int | None = None) -> str:
        """Bind a socket that `server` made; returns the address with the port that was taken.

        `fd` is a TCP socket that already listens; the caller's descriptor stays open.
        Raises AddressInUse or LocalTransportError.
        """
        domain = socket.getsockopt_string(zmq.ZAP_DOMAIN)
        if not socket.getsockopt(zmq.CURVE_SERVER) or not domain:
            raise LocalTransportError(
                "only a socket with CURVE and a ZAP domain may be bound: make it with `server`"
            )
        self._check_zap(domain)
        host, port = split_address(address)
        if host != "*":
            try:
                host = resolve(host)[0]
            except OSError as error:
                raise LocalTransportError(
                    f"cannot listen on {address}: the name {host!r} is not known here; use an IP "
                    f"address of this machine, or * for all"
                ) from error
        socket.setsockopt(zmq.IPV6, int(":" in host))
        if fd is not None:
            own = os.dup(fd)  # libzmq closes its copy with the socket
            os.set_blocking(own, False)
            socket.setsockopt(zmq.USE_FD, own)
        try:
            socket.bind(join_address(host, port))
        except zmq.ZMQError as error:
            raise _bind_error(error, address) from error
        return socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def _check_zap(self, domain: str) -> None:
        if self._zap is None or not self._zap.serves(domain):
            raise LocalTransportError(
                f"no live ZAP handler answers for the domain {domain!r}: without one anybody "
                "could connect; start the handler and register the domain first"
            )

    def _make(self, kind: int) -> Socket:
        options = self.options
        if kind == zmq.ROUTER:
            seed()
        socket = self.context.socket(kind)
        try:
            for each in fields(options):
                for option in each.metadata["zmq"]:
                    socket.setsockopt(option, getattr(options, each.name))
            socket.setsockopt(zmq.MAXMSGSIZE, options.frame_bytes + CURVE_OVERHEAD)
            if kind == zmq.ROUTER:
                # Sending to a peer that is gone is an error; nobody takes over a routing id.
                socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
                socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
            socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self._keys.public)
            socket.setsockopt_string(zmq.CURVE_SECRETKEY, self._keys.secret)
        except BaseException:
            socket.close(0)
            raise
        return socket


def parse_event(message: list[bytes]) -> tuple[int, int]:
    """Event and value of a monitor's message (pyzmq's own parser imports asyncio and ssl)."""
    event, value = _EVENT.unpack(message[0])
    return event, value


def stop_monitor(socket: Socket, monitor: Socket) -> None:
    """End a monitor. What it has reported is read before: libzmq waits for room for the next
    report, and would be waited for here."""
    with suppress(zmq.Again):
        for _ in range(_MOST_EVENTS):
            monitor.recv_multipart(zmq.NOBLOCK)
    socket.disable_monitor()
    monitor.close(0)


def _bind_error(error: zmq.ZMQError, address: str) -> LocalTransportError:
    if error.errno == errno.EADDRINUSE:
        return AddressInUse(
            f"cannot listen on {address}: another process listens there; stop it, or choose "
            "another port"
        )
    remedy = {
        errno.EACCES: "this user may not take that port; choose one above 1023",
        errno.EADDRNOTAVAIL: "this machine does not have that address; use one of its own, or *",
        errno.ENODEV: "this machine does not have that address; use one of its own, or *",
    }.get(error.errno or 0, error.strerror)
    return LocalTransportError(f"cannot listen on {address}: {remedy}")
