"""The errors that this package raises, divided by whose fault they are."""

from __future__ import annotations

import errno
from enum import Enum


class DownReason(str, Enum):  # StrEnum is not in Python 3.10
    """Why a link is not up. `status` shows the text as it is."""

    CONNECTING = "connecting"  # the first attempt is not over
    CLOSED = "closed"  # one side closed it
    UNREACHABLE = "unreachable"  # nobody listens there
    UNKNOWN_HOST = "unknown-host"  # the name service knows no such name, or does not answer
    SILENT = "silent"  # heartbeats were missed
    LOST = "lost"  # the connection broke off
    DENIED = "denied"  # the handshake refused our key
    BUSY = "busy"  # the other side cannot decide now
    WRONG_KEY = "wrong-key"  # the server does not hold the pinned key
    REVOKED = "revoked"  # this side cut the peer off
    PROTOCOL = "protocol"  # the peer broke the protocol
    VERSION = "version"  # the peer speaks another major version

    def __str__(self) -> str:
        return self.value


class TransportError(Exception):
    """Root of this package's errors."""


class LocalTransportError(TransportError):
    """This process used the transport wrongly."""


class AddressInUse(LocalTransportError):
    """Another process listens on the address."""


class ValueNotSerializable(LocalTransportError, TypeError):
    """A value that cannot be sent; the message names the place in it and the remedy."""


class MissingPackage(LocalTransportError, ImportError):
    """A value needs a package, or a time zone, that this Python does not have."""


class MessageTooLarge(LocalTransportError):
    """A message beyond the limits of the link; nothing was sent."""


class KeyFileError(LocalTransportError):
    """A key file that is missing, malformed or readable by others."""


class RemoteProtocolError(TransportError):
    """The peer broke the protocol, which costs it the connection."""


class VersionMismatch(RemoteProtocolError):
    """The peer speaks another major version."""


class CorruptValue(RemoteProtocolError):
    """Bytes that are not a value, or exceed its limits."""


class PeerError(TransportError):
    """The peer cannot be reached, or does not keep up."""


class LinkDown(PeerError):
    """The link is down, for `reason`: the message was not sent."""

    def __init__(self, sentence: str, reason: DownReason) -> None:
        super().__init__(sentence)
        self.reason = reason


class LinkOverflow(PeerError):
    """The peer's window is full: it reads slower than this side sends."""


class BulkError(PeerError):
    """A blob was not moved."""


class BlobMissing(BulkError):
    """The peer does not hold the blob that was asked for."""


class BlobCorrupt(BulkError):
    """The bytes that arrived do not have the digest that was announced."""


class BlobRefused(BulkError):
    """The peer may not read or write this blob, or has no room for it."""


class BlobTooLarge(BlobRefused):
    """It is more than there can ever be room for: trying again does not help."""


class DepotFull(BlobRefused):
    """The depot has no room: what it holds is in use, or the machine gives it none."""


class TransferRefused(BulkError):
    """The receiver does not want the transfer; the message says why."""


class TransferCancelled(BulkError):
    """The sender or the receiver ended the transfer before it was complete."""


class BulkTimeout(BulkError, TimeoutError):
    """The blob was not moved in time; the message says what was waited for."""


_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within this user's quota",
    errno.EROFS: "mount that disk writable",
    errno.EACCES: "let this user use it",
    errno.EPERM: "let this user use it",
    errno.ENOTDIR: "move away what is in the place of a folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


def remedied(error: OSError) -> str:
    """What the system says is wrong with a file, and what to do about it."""
    said = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{said}; {remedy}" if remedy else said
