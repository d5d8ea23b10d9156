"""The handshake Noise_KK_25519_AESGCM_SHA256 and its two ciphers. Pure: chance is an argument.

The Noise Protocol Framework, revision 34 (noiseprotocol.org/noise.html), pattern KK: each side
knows the other's static key beforehand.

    -> e, es, ss
    <- e, ee, se

Both sides end with a key for each direction, which only the holders of the two static keys can
derive, and not even they once the ephemeral keys are gone. As each handshake has new ephemeral
keys, no key of one connection is ever a key of another.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from manta.transports.errors import RemoteProtocolError

if TYPE_CHECKING:
    from manta.transports.interface import Buffer

KEY = 32  # bytes of a key, public or secret
TAG = 16  # bytes that sealing adds
RECORDS = 1 << 16
"""After so many records a key is replaced: with records of 1 MiB, after 2**36 bytes."""

_NAME = b"Noise_KK_25519_AESGCM_SHA256"
_NONCE = struct.Struct(">4xQ")
_LAST = (1 << 64) - 1  # the counter that REKEY uses


class Cipher:
    """One direction: records sealed, or opened, in their order.

    The nonce is a counter, which is never set back; the key is replaced (REKEY, section 11.3) after
    `RECORDS` records, at both ends at the same one.
    """

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)
        self.count = 0

    def seal(self, plain: Buffer, bound: Buffer = b"") -> bytes:
        """Returns the record, which is `TAG` bytes longer. `bound` is authenticated with it."""
        nonce = self._next()
        return self._aead.encrypt(nonce, plain, bound)

    def seal_into(self, plain: Buffer, bound: Buffer, out: Buffer) -> None:
        """`out` has exactly `TAG` bytes more than `plain`."""
        nonce = self._next()
        self._aead.encrypt_into(nonce, plain, bound, out)

    def open(self, record: Buffer, bound: Buffer = b"") -> bytes:
        """Raises RemoteProtocolError for a record that is not the next one, or was changed."""
        nonce = self._next()
        try:
            return self._aead.decrypt(nonce, record, bound)
        except InvalidTag:
            raise _changed() from None

    def open_into(self, record: Buffer, bound: Buffer, out: Buffer) -> None:
        """`out` has exactly `TAG` bytes less than `record`. Raises as `open`."""
        nonce = self._next()
        try:
            self._aead.decrypt_into(nonce, record, bound, out)
        except InvalidTag:
            raise _changed() from None

    def _next(self) -> bytes:
        count = self.count
        if count and not count % RECORDS:
            self._aead = AESGCM(self._aead.encrypt(_NONCE.pack(_LAST), bytes(KEY), None)[:KEY])
        self.count = count + 1
        return _NONCE.pack(count)


class Handshake:
    """One side of a handshake; `write` and `read` are called as the pattern says.

    `static` and `ephemeral` are secret keys, the latter fresh random bytes of this handshake alone;
    `peer` is the other side's static public key; `prologue` is what both must agree on.
    """

    def __init__(
        self, *, initiator: bool, static: bytes, peer: bytes, ephemeral: bytes, prologue: bytes
    ) -> None:
        self._initiator = initiator
        self._static = X25519PrivateKey.from_private_bytes(static)
        self._ephemeral = X25519PrivateKey.from_private_bytes(ephemeral)
        self._peer = X25519PublicKey.from_public_bytes(peer)
        self._hash = self._chain = _NAME.ljust(32, b"\0")
        self._cipher: Cipher | None = None
        self._mix_hash(prologue)
        own = self._static.public_key().public_bytes_raw()
        for key in (own, peer) if initiator else (peer, own):
            self._mix_hash(key)

    @property
    def transcript(self) -> bytes:
        """The hash of all that was said: the same at both ends."""
        return self._hash

    def write(self, payload: bytes = b"") -> bytes:
        """The next message of this side, `KEY + TAG` bytes longer than its payload."""
        own = self._ephemeral.public_key().public_bytes_raw()
        self._mix_hash(own)
        if self._initiator:
            self._mix_key(self._ephemeral, self._peer)  # es
            self._mix_key(self._static, self._peer)  # ss
        else:
            self._mix_key(self._ephemeral, self._theirs)  # ee
            self._mix_key(self._ephemeral, self._peer)  # se
        return own + self._seal(payload)

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's message.

        Raises RemoteProtocolError if the peer has another key, or means another handshake.
        """
        if len(message) < KEY + TAG:
            raise RemoteProtocolError("a handshake's message is too short")
        theirs = message[:KEY]
        self._theirs = X25519PublicKey.from_public_bytes(theirs)
        self._mix_hash(theirs)
        if self._initiator:
            self._mix_key(self._ephemeral, self._theirs)  # ee
            self._mix_key(self._static, self._theirs)  # se
        else:
            self._mix_key(self._static, self._theirs)  # es
            self._mix_key(self._static, self._peer)  # ss
        return self._open(message[KEY:])

    def ciphers(self) -> tuple[Cipher, Cipher]:
        """To send and to receive with, after both messages."""
        first, second = (Cipher(key) for key in _derive(self._chain, b""))
        return (first, second) if self._initiator else (second, first)

    def _mix_hash(self, data: bytes) -> None:
        self._hash = hashlib.sha256(self._hash + data).digest()

    def _mix_key(self, secret: X25519PrivateKey, public: X25519PublicKey) -> None:
        try:
            shared = secret.exchange(public)
        except ValueError:  # a point of small order
            raise RemoteProtocolError("a handshake's public key is none") from None
        self._chain, key = _derive(self._chain, shared)
        self._cipher = Cipher(key)

    def _seal(self, payload: bytes) -> bytes:
        assert self._cipher is not None
        sealed = self._cipher.seal(payload, self._hash)
        self._mix_hash(sealed)
        return sealed

    def _open(self, sealed: bytes) -> bytes:
        assert self._cipher is not None
        payload = self._cipher.open(sealed, self._hash)
        self._mix_hash(sealed)
        return payload


def _derive(chain: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """HKDF (RFC 5869) with SHA-256, no info, and two outputs, as section 4.3 has it."""
    root = hmac.digest(chain, secret, "sha256")
    first = hmac.digest(root, b"\1", "sha256")
    return first, hmac.digest(root, first + b"\2", "sha256")


def _changed() -> RemoteProtocolError:
    return RemoteProtocolError("a record is not the one that the peer sealed next")
