"""The plane itself: links, swarms, parcels and the connections of attempts, on one thread.

All of it runs on the I/O thread of the transport, so that nothing is locked and a letter crosses no
thread on its way from a task's socket to a peer's. Bulk has threads of its own, whose outcomes come
back to this one.
"""

from __future__ import annotations

import logging
import mmap
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from manta.light.wire import BrokenFrame
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.node.peers.rosters import RosterChanged
from manta.node.plane import envelope
from manta.node.plane.channels import Ask, Channel, Gone
from manta.node.plane.collectives.desks import Desks
from manta.node.plane.collectives.messages import CollectiveSaid, CollectivesHeard, Introduced
from manta.node.plane.envelope import BulkAt, NoParcel, WantParcel
from manta.node.plane.links import PeerLinks
from manta.node.plane.parcels import NoRoom, Parcels, Unsealed
from manta.node.plane.requests import CallCollective, Handed, MakeRoom, PlaneRequest
from manta.node.plane.swarm import SwarmExchange
from manta.protocol.base import Instance
from manta.transports.errors import BulkError, LocalTransportError, RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.letters import Remote, Value
from manta.transports.exchange.messages import Parcel
from manta.transports.interface import Buffer
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.peer import BulkPeer
from manta.transports.sealed.tickets import Ticket
from manta.transports.security.admission import Admission
from manta.transports.zeromq.transport import ZmqTransport

log = logging.getLogger("manta.node.plane")


class Daemon(Protocol):
    """The node's daemon, as its plane speaks to it."""

    def want_roster(self, swarm_id: str, wanted: bool) -> None: ...


class _Fetch(NamedTuple):
    swarm_id: str
    remote: Remote
    key: str
    done: Callable[[str], None]


class Plane:
    """`call` runs what it is given on the plane's thread; all else is for that thread."""

    def __init__(
        self,
        node_id: str,
        transport: ZmqTransport,
        bulk: BulkEndpoint,
        admission: Admission,
        daemon: Daemon,
        *,
        bulk_port: int,
        memory: int,
    ) -> None:
        self._me = node_id
        self._transport = transport
        self._io = transport.io
        self._bulk = bulk
        self._bulk_port = bulk_port
        self._daemon = daemon
        self._known = KnownPeers()
        self.links = self._links = PeerLinks(
            transport, admission, self, node_id, self._io.call_later
        )
        self._parcels = Parcels(self, memory)
        self._desks = Desks(node_id, self._known, self._parcels, self)
        self._swarms: dict[str, SwarmExchange] = {}
        self._channels: dict[int, Channel] = {}
        """By descriptor."""
        self._fetches: dict[bytes, _Fetch] = {}
        """By transfer: what is under way from other nodes."""
        self._timer: tuple[float, Any] | None = None

    # --- what the daemon says -----------------------------------------------------------------

    def told(self, message: PeersAnew | DirectoryChanged | DirectoryOver | RosterChanged) -> None:
        if isinstance(message, RosterChanged):
            self._swarm(message.swarm_id).roster_changed(message.roster)
            self._desks.roster_changed(message.swarm_id, message.roster)
            self._set_timer()
            return
        gone = self._known.apply(message)
        match message:
            case PeersAnew(directories, rosters):
                for directory in directories:
                    self._links.know(p for p in directory.peers if p.node_id != self._me)
                for roster in rosters:
                    self.told(roster)
            case DirectoryChanged(swarm_id, _, began, peers, departed):
                if began and swarm_id in self._swarms:
                    self._begin_anew(swarm_id)
                self._links.know(peer for peer in peers if peer.node_id != self._me)
                if swarm_id in self._swarms:
                    self._swarms[swarm_id].peers_removed(one.node_id for one in departed)
                self._desks.directory_changed(swarm_id, [one.node_id for one in departed])
            case DirectoryOver(swarm_id):
                self._forget(swarm_id)
        self._links.forget(gone)
        for swarm_id in self._desks.directories_changed():
            self._swarm(swarm_id)

    def attach(self, at: Instance, fd: int) -> None:
        """A connection of an attempt."""
        channel = Channel(fd, at)
        self._channels[channel.fileno()] = channel
        self._io.add_reader(channel.fileno(), partial(self._on_ready, channel))

    def begin(self, at: Instance) -> None:
        self._swarm(at.swarm_id).begin(at)

    def end(self, at: Instance, *, counts: bool) -> None:
        """The attempt is over: its connections are closed."""
        for channel in [one for one in self._channels.values() if one.at == at]:
            self._close(channel)
        if at.swarm_id in self._swarms:
            self._swarms[at.swarm_id].end(at, counts=counts)
        self._desks.end(at)

    def close(self) -> None:
        for channel in list(self._channels.values()):
            self._close(channel)
        self._desks.close()
        self._parcels.close()

    def _swarm(self, swarm_id: str) -> SwarmExchange:
        found = self._swarms.get(swarm_id)
        if found is None:
            found = self._swarms[swarm_id] = SwarmExchange(swarm_id, self._me, self._known, self)
            self._daemon.want_roster(swarm_id, True)
        return found

    def _begin_anew(self, swarm_id: str) -> None:
        """The manager has gone back: nothing that was said on the other timeline counts."""
        self._swarms.pop(swarm_id).close()
        self._desks.forget(swarm_id)
        self._swarm(swarm_id)

    def _forget(self, swarm_id: str) -> None:
        self._desks.forget(swarm_id)
        if (swarm := self._swarms.pop(swarm_id, None)) is not None:
            swarm.close()
            self._daemon.want_roster(swarm_id, False)

    # --- attempts -----------------------------------------------------------------------------

    def _on_ready(self, channel: Channel) -> None:
        try:
            for request, fds in channel.read():
                self._on_request(channel, request, fds)
        except Gone:
            self._close(channel)
        except BrokenFrame as error:
            log.warning("A connection of %s was cut: %s", channel.at, error)
            self._close(channel)
        self._set_timer()

    def _on_request(self, channel: Channel, request: PlaneRequest, fds: list[int]) -> None:
        """Raises BrokenFrame."""
        if channel.current is not None:
            raise BrokenFrame("a request before the one before it was answered.")
        value: Value | None = None
        handed = getattr(request, "value", None)
        ask = channel.current = Ask(channel, request, None, self._answered, self._send)
        if isinstance(handed, Handed):
            try:
                value = self._parcels.take_in(fds[0], handed.size)
            except Unsealed as error:
                raise BrokenFrame(str(error)) from error
            except NoRoom as error:
                ask.fail("ResourceExhaustionError", str(error))
                return
        elif handed is not None:
            value = handed
        ask.value = value
        swarm = self._swarm(channel.at.swarm_id)
        if isinstance(request, CallCollective | MakeRoom):
            self._desks.ask(ask)
        else:
            swarm.ask(ask, time.monotonic())

    def _answered(self, ask: Ask, told: dict[str, Any], along: Parcel | Remote | None) -> None:
        if isinstance(along, Remote):
            self._parcels.want(ask.at.swarm_id, along, partial(self._fetched, ask, told, along))
        else:
            fd = None if along is None else self._parcels.own(along.id)
            self._send(ask, told, [] if fd is None else [fd])

    def _fetched(self, ask: Ask, told: dict[str, Any], remote: Remote, fd: int, why: str) -> None:
        if fd >= 0:
            self._send(ask, told, [fd])
        elif self._known.node(ask.at.swarm_id, remote.peer) is None:
            ask.fail("PeerLost", f"{remote.peer} is gone, and with it a value of its: {why}")
        else:
            ask.fail("RequestFailed", f"A value of {remote.peer} did not arrive: {why}")

    def _send(self, ask: Ask, told: dict[str, Any], fds: list[int]) -> None:
        channel = ask.channel
        if channel.current is not ask:
            return  # it was closed meanwhile
        channel.current = None
        try:
            channel.send(told, fds)
        except Gone:
            self._close(channel)

    def _close(self, channel: Channel) -> None:
        if self._channels.pop(channel.fileno(), None) is None:
            return
        self._io.remove_reader(channel.fileno())
        ask, channel.current = channel.current, None
        channel.close()
        if ask is not None and channel.at.swarm_id in self._swarms:
            self._swarms[channel.at.swarm_id].abandon(ask)
            self._desks.abandon(ask)

    # --- links (links.Owner) ------------------------------------------------------------------

    def link_up(self, key: str, *, anew: bool) -> None:
        ticket = self._bulk.ticket(key).pack()
        self._links.send(key, envelope.pack("", "", BulkAt(self._bulk_port, ticket)))
        for swarm_id, swarm in self._swarms.items():
            if (peer := self._known.peer(swarm_id, key)) is not None:
                swarm.link_up(peer.node_id, wants=anew)
                self._desks.link_up(swarm_id, peer.node_id)
        for transfer, fetch in self._fetches.items():
            if fetch.key == key:
                self._ask_for(transfer, fetch)
        self._set_timer()

    def link_down(self, key: str) -> None:
        for swarm_id, swarm in self._swarms.items():
            if (peer := self._known.peer(swarm_id, key)) is not None:
                swarm.link_down(peer.node_id)
        self._set_timer()

    def received(self, key: str, data: Buffer) -> None:
        """Raises RemoteProtocolError."""
        said = envelope.unpack(data)
        if isinstance(said.body, BulkAt):
            self._bulk_at(key, said.body)
            return
        peer = self._known.peer(said.swarm_id, key)
        if peer is None or said.epoch != self._known.epoch(said.swarm_id):
            # Not, or not yet, or not any more of this swarm and timeline.
            self._desks.unheard(said.swarm_id, key)
            return
        match said.body:
            case WantParcel(parcel, transfer):
                self._serve(key, said, parcel, transfer)
            case NoParcel(transfer):
                if transfer in self._fetches:
                    self._bulk.peer(key).refuse(transfer, "its sender has it no more")
            case Introduced() | CollectiveSaid() | CollectivesHeard():
                self._swarm(said.swarm_id)
                self._desks.handle(said.swarm_id, peer.node_id, said.body)
                self._set_timer()
            case _:
                self._swarm(said.swarm_id).handle(peer.node_id, said.body)
                self._set_timer()

    # --- bulk ---------------------------------------------------------------------------------

    def _bulk_at(self, key: str, at: BulkAt) -> None:
        """Either side may dial bulk: whoever dialled the link does."""
        host = self._links.dialled_host(key)
        if host is None:
            return
        try:
            self._bulk.dial(key, f"tcp://{host}:{at.port}", Ticket.unpack(at.ticket))
        except LocalTransportError as error:
            raise RemoteProtocolError(str(error)) from error

    def _serve(self, key: str, said: envelope.Envelope, parcel: bytes, transfer: bytes) -> None:
        fd = self._parcels.own(parcel)
        if fd is None:
            told = envelope.pack(said.swarm_id, said.epoch, NoParcel(transfer))
            self._links.send(key, told)
            return
        ours = os.dup(fd)
        memory = mmap.mmap(ours, os.fstat(ours).st_size, mmap.MAP_SHARED, mmap.PROT_READ)

        def done(_: BulkError | None) -> None:
            os.close(ours)  # the mapping ends when nobody refers to it any more

        try:
            self._bulk.peer(key).send(transfer, [memoryview(memory)], done=done, memfd=ours)
        except (BulkError, LocalTransportError) as error:  # asked for twice, or too many wait
            log.info("A value was not sent to node %s: %s", key[:8], error)
            done(None)

    def fetch(
        self,
        swarm_id: str,
        remote: Remote,
        transfer: bytes,
        into: memoryview,
        done: Callable[[str], None],
    ) -> None:
        """Of parcels.Carrier."""
        node = self._known.node(swarm_id, remote.peer)
        if node is None:
            self._io.call(partial(done, "its node has no part in the swarm any more"))
            return
        self._fetches[transfer] = fetch = _Fetch(swarm_id, remote, node.key, done)

        def ended(error: BulkError | None) -> None:  # on a thread of the bulk's
            self._io.call(partial(self._fetch_ended, transfer, error))

        try:
            self._bulk.peer(node.key).expect(transfer, into, done=ended)
        except (BulkError, LocalTransportError) as error:
            self._io.call(partial(self._fetch_ended, transfer, BulkError(str(error))))
            return
        self._ask_for(transfer, fetch)

    def _ask_for(self, transfer: bytes, fetch: _Fetch) -> None:
        """Again whenever the link is up again: what was asked may not have arrived."""
        epoch = self._known.epoch(fetch.swarm_id) or ""
        wanted = WantParcel(fetch.remote.parcel.id, transfer)
        self._links.send(fetch.key, envelope.pack(fetch.swarm_id, epoch, wanted))

    def _fetch_ended(self, transfer: bytes, error: BulkError | None) -> None:
        fetch = self._fetches.pop(transfer)
        fetch.done("" if error is None else str(error))
        self._set_timer()

    def give_up(self, transfer: bytes) -> None:
        """Of parcels.Carrier."""
        fetch = self._fetches.get(transfer)
        if fetch is None:
            return  # it has just ended
        try:
            self._bulk.peer(fetch.key).refuse(transfer, "nobody wants it any more")
        except LocalTransportError:
            return  # the peer is gone, and with it the transfer

    # --- swarms (swarm.Outside) ---------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self.say(swarm_id, peer, message)

    def release(self, value: Value) -> None:
        if not isinstance(value, bytes):
            self._parcels.release(value)

    def arrived(self, swarm_id: str, value: Value) -> None:
        if isinstance(value, Remote):
            self._parcels.want(swarm_id, value)

    def is_up(self, swarm_id: str, peer: str) -> bool:
        node = self._known.node(swarm_id, peer)
        return node is not None and self._links.is_up(node.key)

    # --- collectives (desks.Outside) ------------------------------------------------------------

    def say(self, swarm_id: str, peer: str, message: envelope.Body) -> None:
        node, epoch = self._known.node(swarm_id, peer), self._known.epoch(swarm_id)
        if node is not None and epoch is not None:
            self._links.send(node.key, envelope.pack(swarm_id, epoch, message))

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        node = self._known.node(swarm_id, peer)
        if node is not None:
            self._links.end(node.key, why)

    def bulk_peer(self, swarm_id: str, peer: str) -> BulkPeer:
        node = self._known.node(swarm_id, peer)
        if node is None:
            raise LocalTransportError("its node has no part in the swarm any more")
        return self._bulk.peer(node.key)

    def post(self, call: Callable[[], None]) -> object:
        return self._io.call(partial(self._posted, call))

    def _posted(self, call: Callable[[], None]) -> None:
        call()
        self._set_timer()

    # --- time ---------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        times = [self._desks.due, *(swarm.due for swarm in self._swarms.values())]
        due = min((one for one in times if one is not None), default=None)
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = due, self._io.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        for swarm in self._swarms.values():
            swarm.tick(now)
        self._desks.tick(now)
        self._set_timer()
