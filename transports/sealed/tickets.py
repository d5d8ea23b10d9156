"""Who may open a connection for bulk, before anything else is read of it. Pure.

A ticket is an id and a secret, which its issuer gives to one peer over a link that proved the
peer's key. On a connection the issuer speaks first, so that nothing can be replayed:

    listener   greeting: what this is, and a nonce                       40 bytes
    caller     ticket's id, a MAC over all with the secret, Noise's first  96 bytes
    listener   a verdict, and Noise's second message                       49 bytes

The caller's 96 bytes are all that is read of a stranger. An id that is not known costs a look into
a table, a wrong MAC one HMAC; only a holder of the secret makes the listener compute a handshake
(`noise`), which then proves both static keys. No key is said aloud.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import NamedTuple

from zmq.utils import z85

from manta.transports.errors import DownReason, LocalTransportError, RemoteProtocolError
from manta.transports.sealed.noise import KEY, TAG, Cipher, Handshake
from manta.transports.security.keys import KeyPair, check_key

_ID, _MAC, _NONCE = 16, 32, 32
_NOISE = KEY + TAG
_DENIED, _WELCOME, _BUSY = b"\0", b"\1", b"\2"
_MAGIC = {"sealed": b"MANTAB\1S", "plain": b"MANTAB\1P"}
GREETING = 8 + _NONCE  # bytes
CALL = _ID + _MAC + _NOISE
REPLY = 1 + _NOISE


class Denied(Exception):
    """The connection is not to be; `reason` says which side does not agree."""

    def __init__(self, reason: DownReason) -> None:
        super().__init__(str(reason))
        self.reason = reason


@dataclass(frozen=True)
class Ticket:
    """What lets its holder connect to its issuer, until it is withdrawn."""

    id: bytes
    secret: bytes = field(repr=False)

    def pack(self) -> bytes:
        """48 bytes: a secret, for an encrypted link only."""
        return self.id + self.secret

    @classmethod
    def unpack(cls, data: bytes) -> Ticket:
        """Raises LocalTransportError."""
        if len(data) != _ID + KEY:
            raise LocalTransportError(f"a ticket has {_ID + KEY} bytes, not {len(data)}")
        return cls(bytes(data[:_ID]), bytes(data[_ID:]))


class Tickets:
    """Those that one listener issued: one for each key, of which the last is good."""

    def __init__(self) -> None:
        self._keys: dict[bytes, tuple[str, Ticket]] = {}
        self._of: dict[str, bytes] = {}

    def issue(self, key: str, random: bytes) -> Ticket:
        """A ticket for the peer with that key, from 48 random bytes; its former one ends."""
        check_key(key)
        ticket = Ticket.unpack(random)
        self.withdraw(key)
        self._of[key] = ticket.id
        self._keys[ticket.id] = key, ticket
        return ticket

    def withdraw(self, key: str) -> None:
        """Nobody is admitted any more with the ticket of that key."""
        id_ = self._of.pop(key, None)
        if id_ is not None:
            del self._keys[id_]

    def find(self, id_: bytes) -> tuple[str, Ticket] | None:
        """The key that holds a ticket, and the ticket."""
        return self._keys.get(id_)


class Session(NamedTuple):
    """What a handshake leads to."""

    send: Cipher
    receive: Cipher


class Door:
    """The listener's side of one connection. `nonce`, `ephemeral`: 32 fresh random bytes each."""

    def __init__(
        self, keys: KeyPair, tickets: Tickets, form: str, nonce: bytes, ephemeral: bytes
    ) -> None:
        self.greeting = _MAGIC[form] + nonce
        self._keys = keys
        self._tickets = tickets
        self._ephemeral = ephemeral

    def admit(self, call: bytes) -> tuple[str, bytes, Session]:
        """The key of the caller, the reply to it, and the session. Raises Denied."""
        id_, mac, message = call[:_ID], call[_ID : _ID + _MAC], call[_ID + _MAC :]
        found = self._tickets.find(id_)
        if len(call) != CALL or found is None:
            raise Denied(DownReason.DENIED)
        key, ticket = found
        if not hmac.compare_digest(mac, _mac(ticket, self.greeting, message)):
            raise Denied(DownReason.DENIED)
        handshake = _handshake(
            self._keys, key, self._ephemeral, self.greeting + id_, initiator=False
        )
        try:
            handshake.read(message)
        except RemoteProtocolError:
            raise Denied(DownReason.DENIED) from None
        reply = _WELCOME + handshake.write()
        return key, reply, Session(*handshake.ciphers())


REFUSALS = {DownReason.DENIED: _DENIED + bytes(_NOISE), DownReason.BUSY: _BUSY + bytes(_NOISE)}
"""The replies to who is not admitted, and to who may try again later."""


class Caller:
    """The dialling side of one connection. `ephemeral`: 32 fresh random bytes."""

    def __init__(
        self, keys: KeyPair, peer_key: str, ticket: Ticket, form: str, ephemeral: bytes
    ) -> None:
        self._keys = keys
        self._peer_key = peer_key
        self._ticket = ticket
        self._magic = _MAGIC[form]
        self._ephemeral = ephemeral

    def call(self, greeting: bytes) -> bytes:
        """The answer to a greeting. Raises Denied for what is no listener of this form."""
        if len(greeting) != GREETING or not greeting.startswith(self._magic):
            raise Denied(DownReason.PROTOCOL)
        id_ = self._ticket.id
        self._handshake = _handshake(
            self._keys, self._peer_key, self._ephemeral, greeting + id_, initiator=True
        )
        message = self._handshake.write()
        return id_ + _mac(self._ticket, greeting, message) + message

    def finish(self, reply: bytes) -> Session:
        """Raises Denied."""
        if len(reply) != REPLY or reply[:1] != _WELCOME:
            raise Denied(DownReason.BUSY if reply[:1] == _BUSY else DownReason.DENIED)
        try:
            self._handshake.read(reply[1:])
        except RemoteProtocolError:
            raise Denied(DownReason.WRONG_KEY) from None
        return Session(*self._handshake.ciphers())


def _mac(ticket: Ticket, greeting: bytes, message: bytes) -> bytes:
    return hmac.digest(ticket.secret, greeting + ticket.id + message, "sha256")


def _handshake(
    keys: KeyPair, peer: str, ephemeral: bytes, prologue: bytes, *, initiator: bool
) -> Handshake:
    return Handshake(
        initiator=initiator,
        static=z85.decode(keys.secret),
        peer=z85.decode(peer),
        ephemeral=ephemeral,
        prologue=prologue,
    )
