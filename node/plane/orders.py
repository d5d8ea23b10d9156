"""What a node's daemon and its plane say to each other, over a Unix socket that both inherit.

A frame is a length (4 bytes, little-endian) and a message in msgpack; its descriptors come with the
first byte.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from manta.light.wire import HEADER, BrokenFrame, Frames, receive_bytes, send_frame
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.rosters import RosterChanged, RosterDiffers
from manta.node.policy.rules import SumLimit
from manta.protocol.base import Instance
from manta.protocol.peers import LinksTold
from manta.transports.codec.decoders import MALFORMED

LONGEST = 256 * 1024 * 1024
"""Bytes of a message: a roster may have a million instances."""
_READ = 256 * 1024


class _Order(msgspec.Struct, frozen=True, tag=True):
    pass


# To the plane.


class Serve(_Order, frozen=True):
    """The first: who the node is. With `listens` comes a socket at which peers connect, and another
    one for bulk, unless that goes `over_links`."""

    node_id: str
    public: str
    secret: str
    memory: int
    """Bytes of large values that are kept in memory."""
    folder: str
    """For what outlives the plane."""
    listens: bool
    over_links: bool = False
    """Whether bulk goes over the links, but to nodes that share what this machine has."""
    is_local: bool = True
    """Whether it is linked with this user's other nodes on this machine by what they share."""
    relay: tuple[str, str] | None = None
    """Address and key of who relays what cannot go directly: the manager's, for nodes."""


class Anew(_Order, frozen=True):
    """All that is known; whatever was known besides is over."""

    directories: tuple[DirectoryChanged, ...]
    rosters: tuple[RosterChanged, ...]


class Changed(_Order, frozen=True):
    directory: DirectoryChanged


class Over(_Order, frozen=True):
    directory: DirectoryOver


class Forget(_Order, frozen=True):
    """These swarms are over, says the manager: what was kept of them is deleted, which may be of
    swarms that no directory has named since."""

    swarm_ids: tuple[str, ...]


class Rostered(_Order, frozen=True):
    roster: RosterChanged | RosterDiffers


class Attach(_Order, frozen=True):
    """A connection of an attempt comes with it; the first one begins the attempt. With `sums` it
    may tell others something in these alone."""

    at: Instance
    sums: SumLimit | None = None


class End(_Order, frozen=True):
    """The attempt is over. `Ended` answers. If it `is_gone`, nobody has anything mapped that it was
    given."""

    at: Instance
    counts: bool
    is_gone: bool = False


class Settled(_Order, frozen=True):
    """Answers `Settle`."""

    at: Instance


ToPlane = Serve | Anew | Changed | Over | Forget | Rostered | Attach | End | Settled

# To the daemon.


class Serving(_Order, frozen=True):
    """It is ready."""


class Want(_Order, frozen=True):
    """Of a swarm's roster."""

    swarm_id: str
    wanted: bool


class Settle(_Order, frozen=True):
    """Is to be answered once the manager has applied what the attempt has written by now."""

    at: Instance


class Ended(_Order, frozen=True):
    """What the attempt told others outlives this process and the node: its end may be told."""

    at: Instance


class Broke(_Order, frozen=True):
    """The attempt has sent what the protocol forbids, and its connection is cut."""

    at: Instance
    why: str


class Stopped(_Order, frozen=True):
    """What the attempt was to tell others has not left: so many bytes. `why` says why, without a
    full stop."""

    at: Instance
    size: int
    why: str


class Summed(_Order, frozen=True):
    """The attempt, which may tell others something in sums alone, gives so many bytes to one."""

    at: Instance
    size: int


class Lost(_Order, frozen=True):
    """What the attempt told others is forgotten, and it cannot go on. `how` says why, as a
    sentence without its end."""

    at: Instance
    how: str


class Linked(_Order, frozen=True):
    """All links with other nodes, whenever they have changed."""

    links: LinksTold


ToDaemon = Serving | Want | Settle | Ended | Broke | Stopped | Summed | Lost | Linked

T = TypeVar("T", ToPlane, ToDaemon)
_encode = msgspec.msgpack.Encoder().encode


class OrderSocket(Generic[T]):
    """One end; `kind` is the type of what comes."""

    def __init__(self, sock: socket.socket, kind: object) -> None:
        self.socket = sock
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._frames = Frames(LONGEST)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, order: ToPlane | ToDaemon, fds: Sequence[int] = ()) -> None:
        """Blocks while the other end does not read. Raises OSError."""
        body = _encode(order)
        data = HEADER.pack(len(body)) + body
        sent = send_frame(self.socket, data, fds)
        if sent < len(data):
            self.socket.sendall(memoryview(data)[sent:])

    def read(self) -> None:
        """Takes in what has come, or waits for it. Raises EOFError at the end, BrokenFrame,
        OSError."""
        data, fds = receive_bytes(self.socket, _READ)
        if not data:
            raise EOFError
        self._frames.feed(data, fds)

    def next(self) -> tuple[T, list[int]] | None:
        """The next whole message, with its descriptors, which the caller must close.

        Raises BrokenFrame.
        """
        body = self._frames.next()
        if body is None:
            return None
        try:
            order: T = self._decode(body)
        except MALFORMED as error:
            raise BrokenFrame(f"{type(error).__name__}: {error}") from error
        along = int(isinstance(order, Attach))
        if isinstance(order, Serve):
            along = order.listens + (order.listens and not order.over_links)
        return order, self._frames.take(along)

    def close(self) -> None:
        self._frames.close()
        self.socket.close()


def pair() -> tuple[socket.socket, int]:
    """One end for the daemon, and the descriptor of the other, which a child inherits."""
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    return ours, theirs.detach()
