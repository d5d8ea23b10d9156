"""A CURVE client written by hand, over a plain TCP socket: it says what libzmq never would.

For tests of what a stranger, or a peer that holds a key, can do to a listener. `CurveClient` speaks
ZMTP 3.1 (RFC 37) with CURVE (RFC 26) and checks nothing of what it is asked to send: each step of
the handshake can be left out, repeated or forged, and then frames of any size, flag and number
follow, whole or in pieces.

    with CurveClient(address, server_key, routing_id=b"mine").connect() as client:
        client.send(HELLO)
        assert client.receive()
        client.flood(client.endless(b"part"), most=64 * MIB)
        assert client.wait_cut()

It is blocking, for one thread, and gives up after `timeout` seconds of silence.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import Self

from nacl import bindings
from zmq.utils import z85

from manta.transports.addresses import split_address
from manta.transports.security.keys import KeyPair

MORE, LARGE, COMMAND = 1, 2, 4
"""The flags of a frame."""
SEALED_COMMAND = 2
"""The flag of a command within an encrypted frame; that of a part with more to come is MORE."""
GREETING_BYTES = 64
_HUNG_UP = getattr(select, "POLLRDHUP", 0)
_SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


class NotWelcome(Exception):
    """The server refused the handshake with an ERROR; the argument is its status code."""


class Hangup(Exception):
    """The server ended the connection."""


def greeting(
    mechanism: bytes = b"CURVE", *, version: tuple[int, int] = (3, 1), server: bool = False
) -> bytes:
    """The first 64 bytes of each side."""
    return _SIGNATURE + bytes((*version, *mechanism.ljust(20, b"\0"), server)) + bytes(31)


def frame(body: bytes, flags: int = 0, *, size: int | None = None) -> bytes:
    """A frame of ZMTP; `size` is what it claims instead of what it has."""
    claimed = len(body) if size is None else size
    if claimed > 255:
        return struct.pack("!BQ", flags | LARGE, claimed) + body
    return bytes((flags, claimed)) + body


def command(name: bytes, body: bytes) -> bytes:
    """The body of a command, which goes into a frame with COMMAND."""
    return bytes((len(name),)) + name + body


def ping(ttl: int = 0, context: bytes = b"") -> bytes:
    """The body of a PING, whose answer repeats `context`; `ttl` is in tenths of a second."""
    return command(b"PING", struct.pack("!H", ttl) + context)


def metadata(properties: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The properties that an INITIATE carries."""
    return b"".join(
        bytes((len(name),)) + name + struct.pack("!I", len(value)) + value
        for name, value in properties
    )


class CurveClient:
    """One connection, from the greeting on."""

    def __init__(
        self,
        address: str,
        server_key: str,
        keys: KeyPair | None = None,
        *,
        routing_id: bytes = b"",
        socket_type: bytes = b"DEALER",
        source: str = "",
        timeout: float = 5.0,
    ) -> None:
        """Connects and sends nothing. `source` is the address of this machine to come from."""
        self.keys = keys or KeyPair.generate()
        self.routing_id = routing_id
        self.socket_type = socket_type
        self.timeout = timeout
        self._server = z85.decode(server_key)
        self._public, self._secret = z85.decode(self.keys.public), z85.decode(self.keys.secret)
        self._short_public, self._short_secret = bindings.crypto_box_keypair()
        self._short_server = b""
        self._cookie = b""
        self._shared = b""
        self.nonce = 0
        """Of what was encrypted last; the server refuses any that is not greater."""
        host, port = split_address(address)
        self.socket = socket.create_connection(
            (host, port), timeout, (source, 0) if source else None
        )
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    # --- the handshake, whole or step by step ------------------------------------------------

    def connect(self) -> Self:
        """The whole handshake. Raises NotWelcome, or Hangup if the server says nothing."""
        self.greet()
        self.say_hello()
        self.await_welcome()
        self.initiate()
        self.await_ready()
        return self

    def greet(self) -> bytes:
        """Sends the greeting; returns the server's."""
        self.send_raw(greeting())
        return self._read(GREETING_BYTES)

    def say_hello(self) -> None:
        self.send_raw(frame(self.hello(), COMMAND))

    def await_welcome(self) -> None:
        self.welcomed(self.read_command(b"WELCOME"))

    def initiate(self) -> None:
        self.send_raw(frame(self.initiation(), COMMAND))

    def await_ready(self) -> None:
        """Raises NotWelcome, or Hangup if the server says nothing."""
        self.readied(self.read_command(b"READY"))

    def hello(self) -> bytes:
        """The body of a HELLO."""
        box = self._box(b"CurveZMQHELLO---", bytes(64), self._server, self._short_secret)
        return command(b"HELLO", bytes((1, 0)) + bytes(72) + self._short_public + box)

    def welcomed(self, body: bytes) -> None:
        """Takes what follows the name of a WELCOME."""
        opened = bindings.crypto_box_open_easy(
            body[16:], b"WELCOME-" + body[:16], self._server, self._short_secret
        )
        self._short_server, self._cookie = opened[:32], opened[32:]
        self._shared = bindings.crypto_box_beforenm(self._short_server, self._short_secret)

    def initiation(self, properties: Iterable[tuple[bytes, bytes]] | None = None) -> bytes:
        """The body of an INITIATE; `properties` instead of socket type and routing id."""
        if properties is None:
            properties = [(b"Socket-Type", self.socket_type)]
            if self.routing_id:  # libzmq names an empty one, too
                properties.append((b"Identity", self.routing_id))
        number = bindings.randombytes(16)
        vouch = bindings.crypto_box_easy(
            self._short_public + self._server,
            b"VOUCH---" + number,
            self._short_server,
            self._secret,
        )
        inner = self._public + number + vouch + metadata(properties)
        box = self._box(b"CurveZMQINITIATE", inner, self._short_server, self._short_secret)
        return command(b"INITIATE", self._cookie + box)

    def readied(self, body: bytes) -> bytes:
        """Takes what follows the name of a READY; returns the server's properties."""
        nonce = b"CurveZMQREADY---" + body[:8]
        return bindings.crypto_box_open_easy_afternm(body[8:], nonce, self._shared)

    # --- traffic ------------------------------------------------------------------------------

    def send(self, *parts: bytes) -> None:
        """Sends a message as libzmq would."""
        last = len(parts) - 1
        self.send_raw(b"".join(self.sealed(part, more=at < last) for at, part in enumerate(parts)))

    def sealed(
        self, part: bytes, *, more: bool = False, flags: int = 0, nonce: int | None = None
    ) -> bytes:
        """A part as an encrypted frame. To be sent in the order of its making, or as a replay.

        `flags` are SEALED_COMMAND, or any that are forged.
        """
        if nonce is None:
            self.nonce += 1
            nonce = self.nonce
        number = struct.pack("!Q", nonce)
        box = bindings.crypto_box_easy_afternm(
            bytes((flags | more,)) + part, b"CurveZMQMESSAGEC" + number, self._shared
        )
        return frame(command(b"MESSAGE", number + box))

    def ping(self, ttl: int = 0, context: bytes = b"") -> None:
        self.send_raw(self.sealed(ping(ttl, context), flags=SEALED_COMMAND))

    def send_raw(self, data: bytes) -> None:
        """Raises Hangup when the server ended the connection, TimeoutError if it takes no more."""
        rest = memoryview(data)
        poll = select.poll()
        # A server that hung up with data unread takes no more, and need not say so again.
        poll.register(self.socket, select.POLLOUT | _HUNG_UP)
        while rest:
            events = dict(poll.poll(self.timeout * 1000)).get(self.socket.fileno(), 0)
            if not events:
                raise TimeoutError(f"the server took nothing for {self.timeout:g} s")
            if events & ~select.POLLOUT:
                raise Hangup("the server ended the connection")
            try:
                rest = rest[self.socket.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except ConnectionError as error:
                raise Hangup(str(error)) from error

    def flood(self, pieces: Iterable[bytes], *, most: int, seconds: float = 30.0) -> int:
        """Sends pieces until the server hangs up, or `most` bytes or `seconds` are spent.

        Returns the bytes sent.
        """
        deadline = time.monotonic() + seconds
        sent = 0
        for piece in pieces:
            if sent >= most or time.monotonic() > deadline:
                break
            try:
                self.send_raw(piece)
            except (Hangup, TimeoutError):
                break
            sent += len(piece)
        return sent

    def endless(self, part: bytes, batch: int = 64) -> Iterator[bytes]:
        """The frames of a message without an end, so many at a time, for `flood`."""
        while True:
            yield b"".join(self.sealed(part, more=True) for _ in range(batch))

    def trickle(self, data: bytes, pause: float, *, size: int = 1) -> None:
        """Sends `size` bytes at a time. Raises Hangup."""
        for at in range(0, len(data), size):
            self.send_raw(data[at : at + size])
            if self.wait_cut(pause):
                raise Hangup("the server ended the connection")

    def receive(self) -> list[bytes]:
        """The next message. PINGs are not answered. Raises Hangup, or TimeoutError."""
        parts = []
        while True:
            flags, part = self.receive_frame()
            if flags & SEALED_COMMAND:
                continue
            parts.append(part)
            if not flags & MORE:
                return parts

    def receive_frame(self) -> tuple[int, bytes]:
        """The next frame, decrypted: its flags, MORE and SEALED_COMMAND, and its body."""
        body = self.read_command(b"MESSAGE")
        opened = bindings.crypto_box_open_easy_afternm(
            body[8:], b"CurveZMQMESSAGES" + body[:8], self._shared
        )
        return opened[0], opened[1:]

    def read_command(self, name: bytes) -> bytes:
        """What follows this name in the next frame. Raises NotWelcome, or Hangup."""
        _, body = self.read_frame()
        prefix = command(name, b"")
        if not body.startswith(prefix):
            if body.startswith(b"\x05ERROR"):
                raise NotWelcome(body[7:].decode("ascii", "replace"))
            raise AssertionError(f"{body[:20]!r} came instead of {name.decode()}")
        return body[len(prefix) :]

    def read_frame(self) -> tuple[int, bytes]:
        """The next frame as it is on the wire: its flags and its body."""
        (flags,) = self._read(1)
        head = self._read(8 if flags & LARGE else 1)
        return flags, self._read(int.from_bytes(head, "big"))

    def wait_cut(self, timeout: float | None = None) -> bool:
        """Has the server ended the connection within this time? What it sends is kept."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        while True:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
            try:
                self._fill()
            except Hangup:
                return True

    def _box(self, prefix: bytes, inner: bytes, public: bytes, secret: bytes) -> bytes:
        self.nonce += 1
        number = struct.pack("!Q", self.nonce)
        return number + bindings.crypto_box_easy(inner, prefix + number, public, secret)

    def _read(self, size: int) -> bytes:
        while len(self._received) < size:
            self._fill()
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _fill(self) -> None:
        try:
            data = self.socket.recv(65536)
        except ConnectionError as error:
            raise Hangup(str(error)) from error
        if not data:
            raise Hangup("the server ended the connection")
        self._received += data
