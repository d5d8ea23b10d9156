"""Links with peers that nobody can dial, by streams that one other relays.

Within such a stream runs what else runs between two addresses: the same link, by a port of this
machine's loopback, and the same sealed bulk. So the relay sees ciphertext, and both ends prove
their keys to each other. Of two peers the one with the smaller id opens the streams.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections.abc import Callable
from functools import partial

from manta.node.plane.links import PeerLinks
from manta.node.plane.relayed_stream import RelayedStream
from manta.transports.errors import DownReason, LinkDown, LinkOverflow, RemoteProtocolError
from manta.transports.interface import Buffer, Link
from manta.transports.relay import wire
from manta.transports.relay.wire import Kind, Purpose, Said
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.tickets import Ticket
from manta.transports.security.admission import Admission
from manta.transports.zeromq.dialled import DialledLink
from manta.transports.zeromq.transport import ZmqTransport

HOST = "127.0.0.1"
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 3.0
"""Seconds until a stream that ended is opened anew."""
CONNECT = 5.0
ROOM_AGAIN = 0.01
"""Seconds after which it is looked whether the relay takes data again."""

log = logging.getLogger("manta.node.plane")


class Relays:
    """By one relay; LinkHandler for the link to it. All of it on the transport's I/O thread."""

    def __init__(
        self,
        transport: ZmqTransport,
        links: PeerLinks,
        bulk: BulkEndpoint,
        admission: Admission,
        where: tuple[str, str],
        *,
        port: Callable[[], int],
    ) -> None:
        """`where`: address and key of the relay. `port`: of this machine's loopback, where links
        come that others relay."""
        self._transport = transport
        self._io = transport.io
        self._links = links
        self._bulk = bulk
        self._admission = admission
        self._where = where
        self._port = port
        self._link: DialledLink | None = None
        self._without_room: dict[RelayedStream, None] = {}
        """Which have data, where the relay has yet to take what it was sent before."""
        self._closed = False
        self._wanted: dict[str, bool] = {}
        """By key of those who are to be reached so: whether this side opens the streams."""
        self._streams: dict[int, RelayedStream] = {}
        self._numbers = itertools.count(1)
        self._dials: dict[str, Link] = {}
        self._tickets: dict[str, Ticket] = {}
        self._failures: dict[str, int] = {}
        self.peers = _Peers(self, links)

    # --- for whoever chooses ------------------------------------------------------------------

    @property
    def is_wanted(self) -> bool:
        return bool(self._wanted)

    def wants(self, key: str) -> bool:
        return key in self._wanted

    def want(self, key: str, *, opens: bool) -> None:
        """As of `links.Relaying`."""
        if self._closed:
            return
        self._wanted[key] = opens
        self._failures[key] = 0
        if self._link is None:
            self._link = self._transport.dial(*self._where, self)
        else:
            self._open_link(key)

    def enough(self, key: str) -> None:
        self._wanted.pop(key, None)
        self._tickets.pop(key, None)
        self._failures.pop(key, None)
        for stream in [one for one in self._streams.values() if one.key == key]:
            self._close(stream, "it is wanted no more")
        if (link := self._dials.pop(key, None)) is not None:
            link.close()

    def bulk(self, key: str, ticket: Ticket) -> None:
        """The peer admits this side's bulk with that ticket."""
        if self._wanted.get(key) and self._dials.get(key) is self._links.link(key):
            self._tickets[key] = ticket
            self._open_bulk(key)

    def close(self) -> None:
        """Nothing is opened after it."""
        self._closed = True
        for key in list(self._wanted):
            self.enough(key)
        for stream in list(self._streams.values()):
            self._close(stream, "the node stops")

    def end(self) -> None:
        """As `close`, and the relay is left."""
        self.close()
        if self._link is not None:
            self._link.close()

    # --- streams ------------------------------------------------------------------------------

    def _open_link(self, key: str) -> None:
        if not self._may_open(key, Purpose.LINK):
            return
        listening = socket.create_server((HOST, 0))
        port = listening.getsockname()[1]
        self._open(key, Purpose.LINK, partial(_accepted, listening), listening)
        self._dials[key] = self._transport.dial(f"tcp://{HOST}:{port}", key, self.peers)

    def _open_bulk(self, key: str) -> None:
        ticket = self._tickets.get(key)
        if ticket is None or not self._may_open(key, Purpose.BULK):
            return
        ours, theirs = socket.socketpair()
        self._open(key, Purpose.BULK, lambda: ours)
        self._bulk.call(key, theirs, ticket)

    def _may_open(self, key: str, purpose: Purpose) -> bool:
        is_up = self._link is not None and self._link.state is None
        return is_up and self._wanted.get(key, False) and self._find(key, purpose) is None

    def _find(self, key: str, purpose: Purpose) -> RelayedStream | None:
        all_ = self._streams.values()
        return next((one for one in all_ if (one.key, one.purpose) == (key, purpose)), None)

    def _open(
        self,
        key: str,
        purpose: Purpose,
        connect: Callable[[], socket.socket],
        waits_for: socket.socket | None = None,
    ) -> None:
        number = next(self._numbers) % wire.THEIRS
        stream = RelayedStream(self._io, self, number, key, purpose, connect, waits_for)
        self._streams[number] = stream
        self.say(wire.opening(number, purpose, key))
        stream.begin()

    def _called(self, number: int, purpose: Purpose, key: str) -> None:
        """A peer has opened a stream to this node."""
        if self._closed or self._admission.denies(key):
            self.say(wire.closing(number, "this node does not know you"))
            return
        if (before := self._find(key, purpose)) is not None:
            self._close(before, "another has taken its place")
        connect: Callable[[], socket.socket]
        if purpose is Purpose.LINK:
            connect = partial(socket.create_connection, (HOST, self._port()), CONNECT)
        else:
            ours, theirs = socket.socketpair()
            self._bulk.accept(theirs)
            connect = lambda: ours  # noqa: E731
        stream = RelayedStream(self._io, self, number, key, purpose, connect)
        self._streams[number] = stream
        stream.begin()

    def _close(self, stream: RelayedStream, why: str) -> None:
        self._streams.pop(stream.number, None)
        stream.end()
        self.say(wire.closing(stream.number, why))

    def stream_ended(self, stream: RelayedStream, why: str) -> None:
        """Of relayed_stream.Owner."""
        if self._streams.get(stream.number) is stream:
            del self._streams[stream.number]
            self.say(wire.closing(stream.number, why))
            self._again(stream)

    def _again(self, stream: RelayedStream) -> None:
        """Opens one in the place of a stream that has ended."""
        key = stream.key
        if not self._wanted.get(key):
            return
        if stream.purpose is Purpose.LINK and (link := self._dials.pop(key, None)) is not None:
            link.close()
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failures - 1, 10))
        opens = self._open_link if stream.purpose is Purpose.LINK else self._open_bulk
        self._io.call_later(pause, partial(opens, key))

    def say(self, said: Said) -> None:
        """Of relayed_stream.Owner."""
        if self._link is None:
            return
        try:
            self._link.send(said.pack())
        except LinkDown:
            return  # all streams end with it
        except LinkOverflow:
            log.warning("The relay takes nothing: its link is made anew.")
            self._reset()
            self._link.close()
            self._link = self._transport.dial(*self._where, self)

    def has_room(self, stream: RelayedStream) -> bool:
        """Of relayed_stream.Owner. Half of the link is left to what is no data."""
        if self._link is None or not self._link.is_half_full:
            return True
        if not self._without_room:
            self._io.call_later(ROOM_AGAIN, self._look_for_room)
        self._without_room[stream] = None
        return False

    def _look_for_room(self) -> None:
        streams, self._without_room = self._without_room, {}
        for stream in streams:  # those for which there is none yet come here again
            stream.resume()

    def peer_up(self, key: str) -> None:
        self._failures[key] = 0

    def peer_down(self, link: Link) -> None:
        """A relayed link that was dialled is, or stays, down."""
        key = link.peer_key
        if self._dials.get(key) is link:
            del self._dials[key]
            link.close()
            stream = self._find(key, Purpose.LINK)
            if stream is not None:
                self._close(stream, "its link went down")
                self._again(stream)

    # --- LinkHandler, of the link to the relay ------------------------------------------------

    def link_up(self, link: Link) -> None:
        self.say(wire.HERE)
        for key in self._wanted:
            self._open_link(key)

    def link_down(self, link: Link, reason: DownReason) -> None:
        if link is self._link:
            log.info("The relay is not reached: %s.", reason)
            self._reset()

    def _reset(self) -> None:
        streams, self._streams = self._streams, {}
        dials, self._dials = self._dials, {}
        self._tickets.clear()
        for stream in streams.values():
            stream.end()
        for link in dials.values():
            link.close()

    def received(self, link: Link, message: list[Buffer]) -> None:
        if not wire.is_relay(message):
            if not self._links.is_known(link.peer_key):
                raise RemoteProtocolError("no message of a relay")
            self._links.received(link, message)  # of a node, for which any link to this one will do
            return
        said = wire.unpack(message)
        if said.kind is Kind.OPEN:
            if not said.stream & wire.THEIRS or said.stream in self._streams:
                raise RemoteProtocolError("a stream's number that is not the relay's to choose")
            self._called(said.stream, *said.opening)
            return
        stream = self._streams.get(said.stream)
        if stream is None:
            return  # it was closed in this moment
        match said.kind:
            case Kind.DATA:
                if not stream.received(said.payload):
                    raise RemoteProtocolError("more of a stream than was granted")
            case Kind.CREDIT:
                stream.credited(said.credit)
            case Kind.CLOSE:
                log.info("A stream with node %s has ended: %s.", stream.key[:8], said.text)
                del self._streams[said.stream]
                stream.end()
                self._again(stream)


class _Peers:
    """LinkHandler of the links with peers that are relayed, and were dialled by this side."""

    def __init__(self, relays: Relays, links: PeerLinks) -> None:
        self._relays = relays
        self._links = links

    def link_up(self, link: Link) -> None:
        self._relays.peer_up(link.peer_key)
        self._links.relayed_up(link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self._links.left(link, reason)
        self._relays.peer_down(link)

    def received(self, link: Link, message: list[Buffer]) -> None:
        self._links.received(link, message)


def _accepted(listening: socket.socket) -> socket.socket:
    """The connection of this process itself, or of nobody who has a key: CURVE tells."""
    with listening:
        listening.settimeout(CONNECT)
        return listening.accept()[0]
