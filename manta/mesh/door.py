"""Where a peer admits others: a TCP socket, before there is any link.

A peer that joins connects to the door of any member, and both prove that they know the secret
(`spake`). Then each tells who it is, under the key that came of the proof: so neither key can be
exchanged by who is in between. With a list of keys in place of a secret nothing is proved here,
since the links prove keys: who is on the list is told who is there.

    joins   → "manta mesh 1", kind, share           (kind 1: secret, 2: keys, 3: asks for status,
                                                     4: asks for it by a key)
    admits  → share
                                                    or "busy", or "refused"
    joins   → proof, sealed card
    admits  → proof, sealed cards (or status)       or nothing, and the connection ends

Who asks for the status by a key has no link that would prove it, so both prove theirs here, in a
handshake of Noise (`transports.sealed.noise`), whose second message has the status:

    asks    → "manta mesh 1", kind 4, its public key
    admits  → its own public key
    asks    → Noise's first message
    admits  → Noise's second message

Each is a frame of at most a mebibyte behind its length in four bytes. A door serves a few at a
time, each for a few seconds, and lets a source fail ten times a minute.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from zmq.utils import z85

from manta.mesh import spake
from manta.protocol.names import MAX_NAME
from manta.protocol.peers import Addresses
from manta.transports.codec.decoders import MALFORMED
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.sealed.noise import Handshake
from manta.transports.security.admission import Buckets
from manta.transports.security.keys import KEY_CHARACTERS, KeyPair, check_key
from manta.transports.security.strangers import source_of

HELLO = b"manta mesh 1"
BUSY, REFUSED = b"busy", b"refused"
"""In place of any answer."""
SECRET, KEYS, ASKS, ASKS_BY_KEY = b"\x01", b"\x02", b"\x03", b"\x04"
PATIENCE = 5.0
"""Seconds for one connection."""
AT_ONCE = 16
FAILURES = 10
"""Of a source, a minute."""
MOST_CARDS = 64
"""Of whom a peer that joins is told: the rest it hears from these."""
_LARGEST = 1 << 20
_SOURCES = 4096

log = logging.getLogger("manta.mesh")


class Card(msgspec.Struct, frozen=True, array_like=True):
    """Who a peer is, and where its links are dialled."""

    key: Annotated[str, Meta(min_length=KEY_CHARACTERS, max_length=KEY_CHARACTERS)]
    name: Annotated[str, Meta(min_length=1, max_length=MAX_NAME)]
    addresses: Addresses

    def at(self, addresses: Addresses) -> Card:
        return Card(self.key, self.name, addresses)


Cards = Annotated[tuple[Card, ...], Meta(min_length=1, max_length=MOST_CARDS)]
_card = msgspec.msgpack.Decoder(Card).decode
_cards = msgspec.msgpack.Decoder(Cards).decode
_encode = msgspec.msgpack.Encoder().encode


class NotAdmitted(Exception):
    """The other end does not let this peer in, or is none that could."""


class Refused(NotAdmitted):
    """It is told so."""


class Busy(OSError):
    """The door admits nobody for now: it is to be tried again."""


class Trust(NamedTuple):
    """By what peers are admitted: a secret, as `spake.scalar_of` has it, or public keys."""

    w: bytes | None = None
    keys: frozenset[str] = frozenset()


class Door:
    """Admits on threads of its own. `admitted` is called on these with the card of each peer that
    proved the secret, and returns the cards of who is there, this peer's first."""

    def __init__(
        self,
        listening: socket.socket,
        trust: Trust,
        admitted: Callable[[Card], Sequence[Card]],
        status: Callable[[], dict[str, Any]],
        own: KeyPair,
    ) -> None:
        """`status` is called there as well, for who is proved to be admitted and only asks. `own`
        is this peer's pair."""
        self._status = status
        self._own = own
        self._listening = listening
        self._trust = trust
        self._admitted = admitted
        self._places = threading.BoundedSemaphore(AT_ONCE)
        self._failures = Buckets(FAILURES / 60, FAILURES, _SOURCES)
        self._counting = threading.Lock()
        self._closed = threading.Event()
        threading.Thread(target=self._accept, name="manta-mesh-door", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        with suppress(OSError):  # it is closed already
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                stream, address = self._listening.accept()
            except OSError as error:
                if self._closed.is_set():
                    return
                log.warning("Nobody can be admitted for now: %s", error)
                time.sleep(1.0)  # as where descriptors run out
                continue
            if not self._places.acquire(blocking=False):
                with stream, suppress(OSError):
                    stream.settimeout(0.0)
                    stream.send(len(BUSY).to_bytes(4, "big") + BUSY)
                continue
            threading.Thread(
                target=self._serve, args=(stream, source_of(address[0])), daemon=True
            ).start()

    def _serve(self, stream: socket.socket, source: str) -> None:
        try:
            with stream:
                frames = _Frames(stream)
                try:
                    self._admit(frames, source)
                except (Refused, spake.WrongProof):
                    frames.send(REFUSED)
                    raise
        except (OSError, EOFError, NotAdmitted, CryptoError, *MALFORMED) as error:
            log.info("Who came from %s was not admitted: %s", source, error)
        except spake.WrongProof as error:
            log.warning("Who came from %s was not admitted: %s", source, error)
        finally:
            self._places.release()

    def _admit(self, frames: _Frames, source: str) -> None:
        hello = frames.receive()
        if not hello.startswith(HELLO):
            raise NotAdmitted("it is no peer of a mesh, or of another version")
        kind, rest = hello[len(HELLO) : len(HELLO) + 1], hello[len(HELLO) + 1 :]
        if kind == KEYS and self._trust.w is None:
            card = _card(rest)
            if card.key not in self._trust.keys:
                raise Refused("its key is none of those that are admitted")
            frames.send(_encode(tuple(self._admitted(card))))
            return
        if kind == ASKS_BY_KEY and self._trust.w is None:
            self._tell(frames, _decoded_key(rest), source)
            return
        if kind not in (SECRET, ASKS) or self._trust.w is None:
            raise Refused("it is to be admitted by other means than this mesh has")
        self._count(frames, source)
        side = spake.Side(self._trust.w, os.urandom(64), joins=False)
        keys = side.keys(rest)
        frames.send(side.share)
        said = frames.receive()
        spake.check(said[: spake.POINT], keys.a)
        self._has_proved(source)
        box = SecretBox(spake.box_key(keys.shared))
        asked = box.decrypt(said[spake.POINT :])
        told = self._status() if kind == ASKS else tuple(self._admitted(_card(asked)))
        frames.send(keys.b + box.encrypt(_encode(told)))

    def _count(self, frames: _Frames, source: str) -> None:
        """As one that fails, until it has proved itself. Raises NotAdmitted."""
        with self._counting:
            if not self._failures.of(source).take(time.monotonic()):
                frames.send(BUSY)
                raise NotAdmitted("too many have failed")

    def _has_proved(self, source: str) -> None:
        with self._counting:
            self._failures.of(source).give_back()

    def _tell(self, frames: _Frames, key: str, source: str) -> None:
        """Tells the status to who proves to have that key."""
        if key not in self._trust.keys:
            raise Refused("its key is none of those that are admitted")
        self._count(frames, source)
        frames.send(self._own.public.encode())
        handshake = _handshake(self._own, key, asks=False)
        try:
            handshake.read(frames.receive())
        except RemoteProtocolError as error:
            raise Refused(f"it has not proved its key: {error}") from error
        self._has_proved(source)
        frames.send(handshake.write(_encode(self._status())))


def knock(
    address: tuple[str, int], trust: Trust, own: Card, timeout: float = PATIENCE
) -> tuple[Card, ...]:
    """Joins by the member whose door is there: returns the cards of who is there, its own first.
    Raises OSError, NotAdmitted."""
    try:
        if trust.w is not None:
            return _cards(_prove(address, trust.w, SECRET, _encode(own), timeout))
        with socket.create_connection(address, timeout=timeout) as stream:
            frames = _Frames(stream, timeout)
            frames.send(HELLO + KEYS + _encode(own))
            return _cards(frames.receive())
    except MALFORMED as error:
        raise NotAdmitted(f"it is no peer of a mesh ({error})") from error
    except EOFError:
        raise OSError("it has ended the connection") from None


def ask_status(address: tuple[str, int], secret: str, timeout: float = PATIENCE) -> dict[str, Any]:
    """What the member whose door is there knows of its mesh. Raises OSError, NotAdmitted."""
    data = _prove(address, spake.scalar_of(secret), ASKS, b"", timeout)
    try:
        found: dict[str, Any] = msgspec.msgpack.decode(data)
    except MALFORMED as error:
        raise NotAdmitted(f"it is no peer of a mesh ({error})") from error
    return found


def ask_status_by_key(
    address: tuple[str, int], own: KeyPair, known: Collection[str], timeout: float = PATIENCE
) -> dict[str, Any]:
    """As `ask_status`, of a mesh that admits by keys: `own` is one of those, and so is the door's
    (`known`). Raises OSError, NotAdmitted."""
    with socket.create_connection(address, timeout=timeout) as stream:
        frames = _Frames(stream, timeout)
        try:
            frames.send(HELLO + ASKS_BY_KEY + own.public.encode())
            if (theirs := _decoded_key(frames.receive())) not in known:
                raise NotAdmitted(f"its key, {theirs}, is none of those that are known here")
            handshake = _handshake(own, theirs, asks=True)
            frames.send(handshake.write())
            found: dict[str, Any] = msgspec.msgpack.decode(handshake.read(frames.receive()))
        except (RemoteProtocolError, *MALFORMED) as error:
            raise NotAdmitted(f"it is no peer of a mesh ({error})") from error
        except EOFError:
            raise OSError("it has ended the connection") from None
    return found


def _handshake(own: KeyPair, theirs: str, *, asks: bool) -> Handshake:
    """Raises NotAdmitted."""
    try:
        peer = z85.decode(theirs)
    except struct.error:  # five characters that are more than four bytes
        raise NotAdmitted(f"{theirs} is no key") from None
    return Handshake(
        initiator=asks,
        static=z85.decode(own.secret),
        peer=peer,
        ephemeral=os.urandom(32),
        prologue=HELLO + ASKS_BY_KEY,
    )


def _decoded_key(said: bytes) -> str:
    """Raises NotAdmitted."""
    try:
        return check_key(said.decode("ascii"))
    except (UnicodeDecodeError, LocalTransportError):
        raise NotAdmitted("what came is no peer's") from None


def _prove(address: tuple[str, int], w: bytes, kind: bytes, told: bytes, timeout: float) -> bytes:
    """Proves the secret, tells that, and returns the answer. Raises OSError, NotAdmitted."""
    with socket.create_connection(address, timeout=timeout) as stream:
        frames = _Frames(stream, timeout)
        try:
            side = spake.Side(w, os.urandom(64), joins=True)
            frames.send(HELLO + kind + side.share)
            keys = side.keys(frames.receive())
            box = SecretBox(spake.box_key(keys.shared))
            frames.send(keys.a + box.encrypt(told))
            said = frames.receive()
            spake.check(said[: spake.POINT], keys.b)
            return box.decrypt(said[spake.POINT :])
        except (spake.WrongProof, CryptoError) as error:
            raise NotAdmitted(f"it does not know this secret ({error})") from error
        except EOFError:
            raise OSError("it has ended the connection") from None


class _Frames:
    def __init__(self, stream: socket.socket, timeout: float = PATIENCE) -> None:
        self._stream = stream
        self._until = time.monotonic() + timeout

    def send(self, data: bytes) -> None:
        """Raises OSError."""
        self._set_timeout()
        self._stream.sendall(len(data).to_bytes(4, "big") + data)

    def receive(self) -> bytes:
        """Raises OSError, Busy, EOFError, NotAdmitted."""
        size = int.from_bytes(self._read(4), "big")
        if size > _LARGEST:
            raise NotAdmitted("what came is no peer's")
        data = self._read(size)
        if data == REFUSED:
            raise NotAdmitted("its secret, or what it admits peers by, is another one")
        if data == BUSY:
            raise Busy("it admits nobody for now, as many come or too many have failed")
        return data

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            self._set_timeout()
            found = self._stream.recv(min(65536, size - len(data)))
            if not found:
                raise EOFError
            data += found
        return bytes(data)

    def _set_timeout(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("it took too long")
        self._stream.settimeout(left)
