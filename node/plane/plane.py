"""The plane itself: links, swarms, parcels and the connections of attempts, on one thread.

All of it runs on the I/O thread of the transport, so that nothing is locked and a letter crosses no
thread on its way from a task's socket to a peer's. Bulk has threads of its own, whose outcomes come
back to this one.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from manta.light.wire import MAX_CHANNELS, BrokenFrame
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.node.peers.rosters import RosterChanged, RosterDiffers, RosterNews
from manta.node.plane import envelope
from manta.node.plane.bulk_paths import BulkPaths
from manta.node.plane.carrier import ParcelCarrier
from manta.node.plane.channels import Ask, Channel, Gone
from manta.node.plane.collectives.desks import Desks
from manta.node.plane.collectives.messages import CollectiveSaid, CollectivesHeard, Introduced
from manta.node.plane.daemon import Daemon
from manta.node.plane.deliveries import Deliveries
from manta.node.plane.envelope import Aside, BulkAt, NoParcel, NotNow, Ping, Pong, WantParcel
from manta.node.plane.lending import ParcelLending
from manta.node.plane.links import PeerLinks
from manta.node.plane.local import LocalSocket
from manta.node.plane.parcels import NoRoom, Parcels, Unsealed
from manta.node.plane.relay_ways import RelayWays
from manta.node.plane.reports import LinkReports
from manta.node.plane.requests import CallCollective, Handed, MakeRoom, PlaneRequest
from manta.node.plane.rosters import ToldRosters
from manta.node.plane.spool import Spool, Timeline
from manta.node.plane.sums import Sums
from manta.node.plane.swarm import SwarmExchange
from manta.node.policy.rules import SumLimit
from manta.protocol.base import Instance
from manta.protocol.peers import Departure, Peer
from manta.transports.errors import LocalTransportError, RemoteProtocolError
from manta.transports.exchange import messages
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.letters import Remote, Value
from manta.transports.exchange.messages import Parcel
from manta.transports.interface import Buffer
from manta.transports.jobs import Job
from manta.transports.sealed.curve import LinkBulk
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.peer import BulkPeer
from manta.transports.security.admission import Admission
from manta.transports.zeromq.transport import ZmqTransport

DISK = 16 << 30
"""Bytes of large values on disk that a plane keeps at most."""

FORGOTTEN = "the manager went back to an earlier state, before what it told others"

log = logging.getLogger("manta.node.plane")


class Plane:
    """`call` runs what it is given on the plane's thread; all else is for that thread."""

    Links: type[PeerLinks] = PeerLinks

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
        folder: Path,
        disk: int = DISK,
        local: LocalSocket | None = None,
        relay: tuple[str, str] | None = None,
        over_links: bool = False,
    ) -> None:
        """`memory` and `disk`: bytes of values that are kept there; `folder`: what outlives it;
        `local`: where nodes of this user on this machine connect; None if they are to be linked
        as others are. `relay`: address and key of who relays besides nodes; None if nobody does.
        `over_links`: see BulkPaths."""
        self._me = node_id
        self._transport = transport
        self._io = transport.io
        self._bulk = bulk
        self._daemon = daemon
        self.known = self._known = KnownPeers()
        self.links = self._links = self.Links(
            transport, admission, self, node_id, self._io.call_later
        )
        self._links.carried = carried = LinkBulk(bulk, admission, transport.public_key)
        self.paths = BulkPaths(
            bulk, self._links, carried, bulk_port, local, self._io.call_later, over_links=over_links
        )
        self.relays = RelayWays(transport, self._links, bulk, admission, self.known, relay)
        self._links.relaying = self.paths.relays = self.relays
        self._reports = LinkReports(
            self._links, self.paths, bulk, daemon.links_changed, self._io.call_later
        )
        self._carrier = ParcelCarrier(self._io, bulk, self._links, self._known)
        self.spool = Spool(folder, node_id, self._io.call)
        self._parcels = Parcels(self._carrier, memory, self.spool, disk)
        self._lending = ParcelLending(self._io, bulk, self._links, self._known, self._parcels)
        self._deliveries = Deliveries(self._parcels, self._known, self._send, self._lost)
        self._desks = Desks(node_id, self._known, self._parcels, self)
        self._swarms: dict[str, SwarmExchange] = {}
        self._rosters = ToldRosters(self._known)
        self._sums = Sums(daemon.stopped, daemon.summed)
        self._channels: dict[int, Channel] = {}
        """By descriptor."""
        self._timer: tuple[float, Any] | None = None
        self._io.before_each_wait(self._set_timer)

    # --- what the daemon says -----------------------------------------------------------------

    def told(self, message: PeersAnew | DirectoryChanged | DirectoryOver | RosterNews) -> None:
        match message:
            case RosterChanged() | RosterDiffers():
                self._rosters.told(message)
                self._look_at_rosters()
            case PeersAnew(directories, rosters):
                swarm_ids = {*self._swarms, *(one.swarm_id for one in directories)}
                self._apply(message, swarm_ids, [p for d in directories for p in d.peers])
                for told in rosters:
                    self.told(told)
            case DirectoryChanged(swarm_id):
                revoked = [one.key for one in message.departed if one.why == Departure.REVOKED]
                others = (at for key in revoked for at in self._known.spoken(key))
                self._apply(message, {swarm_id, *others}, message.peers)
            case DirectoryOver(swarm_id):
                self._apply(message, [swarm_id], ())

    def _apply(
        self,
        message: PeersAnew | DirectoryChanged | DirectoryOver,
        swarm_ids: Iterable[str],
        peers: Iterable[Peer],
    ) -> None:
        """Changes what is known of the directories of these swarms, and of others."""
        known = self._known
        before = {id_: (known.epoch(id_), set(known.nodes(id_))) for id_ in swarm_ids}
        is_over = isinstance(message, DirectoryOver)
        gone = known.apply(message)
        self._links.know(peers)
        for swarm_id, (former, nodes) in before.items():
            epoch = known.epoch(swarm_id)
            if epoch is None:
                if is_over or former is not None:  # else its attempts came first
                    self._forget(swarm_id)
                continue
            self._begins(Timeline(swarm_id, epoch))
            if swarm_id in self._swarms:
                self._directory_changed(swarm_id, nodes)
        for swarm_id in self._desks.directories_changed():
            self._swarm(swarm_id)
        self._look_at_rosters()
        for swarm_id in before:
            self._carrier.directory_changed(swarm_id)
        self._lending.directories_changed()
        self._links.forget(gone)
        self.paths.forget(gone)
        self.relays.forget(gone)
        self._reports.changed()

    def _directory_changed(self, swarm_id: str, nodes: set[str]) -> None:
        """It had these nodes before."""
        swarm = self._swarms[swarm_id]
        now = set(self._known.nodes(swarm_id))
        for node_id in nodes - now:
            swarm.link_down(node_id)
        # Of one that was lost, or has no part for now, what is kept for it may be wanted yet.
        found = (self._known.departed(swarm_id, node_id) for node_id in nodes - now)
        departed = [one for one in found if one is not None]
        swarm.peers_removed(one.node_id for one in departed if one.why == Departure.REVOKED)
        self._desks.directory_changed(swarm_id, [one.node_id for one in departed])
        for node_id in now - nodes:
            if self.is_up(swarm_id, node_id):  # what it said of this swarm so far was not heard
                swarm.link_up(node_id, wants=True)
                self._desks.link_up(swarm_id, node_id)

    def _look_at_rosters(self) -> None:
        for swarm_id, roster in self._rosters.take():
            timeline = Timeline(swarm_id, roster.epoch)
            self._swarm(swarm_id).roster_changed(roster, timeline, time.monotonic())
            self._desks.roster_changed(swarm_id, roster)

    def attach(self, at: Instance, fd: int) -> None:
        """A connection of an attempt."""
        channel = Channel(fd, at)
        if sum(one.at == at for one in self._channels.values()) >= MAX_CHANNELS:
            channel.refuse(f"more than {MAX_CHANNELS} threads of {at} exchange at a time.")
            return
        self._channels[channel.fileno()] = channel
        self._io.add_reader(channel.fileno(), partial(self._on_ready, channel))

    def settled(self, at: Instance) -> None:
        """Answers `Daemon.settle`."""
        self._desks.settled(at)

    def begin(self, at: Instance, sums: SumLimit | None = None) -> None:
        """With `sums` it may tell others something in these alone."""
        self._sums.begin(at, sums)
        self._swarm(at.swarm_id).begin(at)

    def end(
        self, at: Instance, *, counts: bool, is_gone: bool = False, then: Job = lambda: None
    ) -> None:
        """The attempt is over: its connections are closed; if it `is_gone`, its process has ended.
        Calls `then` when what it told others, if it counts, outlives this process."""
        for channel in [one for one in self._channels.values() if one.at == at]:
            self._close(channel)
        ending = self._desks.ends(at, then, counts=counts)
        if at.swarm_id in self._swarms:
            self._swarms[at.swarm_id].end(at, counts=counts, calls=ending.items, then=ending.kept)
        else:
            ending.kept()
        self._desks.end(at, is_gone=is_gone)
        self._sums.end(at)

    def close(self) -> None:
        for channel in list(self._channels.values()):
            self._close(channel)
        self.relays.close()
        self._desks.close()
        self._parcels.close()
        self.spool.close()

    def _swarm(self, swarm_id: str) -> SwarmExchange:
        found = self._swarms.get(swarm_id)
        if found is None:
            found = self._swarms[swarm_id] = SwarmExchange(swarm_id, self._me, self._known, self)
            self._daemon.want_roster(swarm_id, True)
        return found

    def _begins(self, timeline: Timeline) -> None:
        """Nothing that was said on another timeline of the swarm counts; what was kept on this one
        may be asked for."""
        swarm = self._swarms.get(timeline.swarm_id)
        if swarm is not None and swarm.timeline not in (None, timeline):
            del self._swarms[timeline.swarm_id]
            heir = self._swarm(timeline.swarm_id)
            for at in heir.take_over(swarm, time.monotonic()):
                self._daemon.lost(at, FORGOTTEN)
            self._end_timeline(swarm)
        for other in [one for one in self.spool.untaken if one.swarm_id == timeline.swarm_id]:
            if other != timeline:
                self._parcels.drop(other)
        if swarm is None and timeline in self.spool.untaken:
            self._swarm(timeline.swarm_id)

    def _end_timeline(self, swarm: SwarmExchange) -> None:
        swarm.close()
        self._desks.forget(swarm.id)
        if swarm.timeline is not None:
            self.spool.drop(swarm.timeline)

    def _forget(self, swarm_id: str) -> None:
        self._rosters.forget(swarm_id)
        if (swarm := self._swarms.pop(swarm_id, None)) is not None:
            self._end_timeline(swarm)
            self._daemon.want_roster(swarm_id, False)
        self.forget((swarm_id,))

    def forget(self, swarm_ids: Iterable[str]) -> None:
        """What was kept of these before this process began, and nobody has asked for."""
        over = {one for one in swarm_ids if self._known.epoch(one) is None}
        for timeline in [one for one in self.spool.untaken if one.swarm_id in over]:
            self._parcels.drop(timeline)

    # --- attempts -----------------------------------------------------------------------------

    def _on_ready(self, channel: Channel) -> None:
        try:
            channel.read()
            while channel.is_open and (found := channel.next()) is not None:
                self._on_request(channel, *found)
        except Gone:
            self._close(channel)
        except BrokenFrame as error:
            log.warning("A connection of %s was cut: %s", channel.at, error)
            self._close(channel)
            self._daemon.broke(channel.at, f"it broke the protocol: {error}")

    def _on_request(self, channel: Channel, request: PlaneRequest, fd: int | None) -> None:
        """Raises BrokenFrame."""
        handed = getattr(request, "value", None)
        ask = channel.current = Ask(channel, request, None, self._answered, self._send)
        ask.until = time.monotonic() + getattr(request, "timeout", math.inf)
        if not isinstance(handed, Handed):
            self._ask(ask, handed)
            return
        assert fd is not None
        try:
            self._parcels.take_in(
                channel.at.swarm_id, fd, handed.size, partial(self._taken_in, ask)
            )
        except Unsealed as error:
            raise BrokenFrame(str(error)) from error
        except NoRoom as error:
            self._ask(ask, None, str(error))

    def _taken_in(self, ask: Ask, value: Parcel | None, why: str) -> None:
        if ask.channel.current is not ask:  # it was closed meanwhile
            if value is not None:
                self._parcels.release(value)
        else:
            self._ask(ask, value, why)

    def _ask(self, ask: Ask, value: Value | None, refusal: str = "") -> None:
        ask.value, ask.refusal = value, refusal
        swarm = self._swarm(ask.at.swarm_id)
        if not self._sums.admits(ask):
            return
        if isinstance(ask.body, CallCollective | MakeRoom):
            if self._known.epoch(swarm.id) is not None:
                swarm.spoke(ask.at)
            self._desks.take(ask)
        elif refusal:
            ask.fail("ResourceExhaustionError", refusal)
        else:
            swarm.ask(ask, time.monotonic())

    def _answered(self, ask: Ask, told: dict[str, Any], along: Parcel | Remote | None) -> None:
        if told["k"] == "error" and ask.value is not None:
            self.release(ask.value)
        if along is not None:
            self._deliveries.begin(ask, told, along)
        else:
            self._send(ask, told, [])

    def _lost(self, ask: Ask, remote: Remote) -> None:
        self._swarm(ask.at.swarm_id).lost(ask, remote, time.monotonic())

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
        self._desks.disconnected(channel.at, channel.fileno())
        ask, channel.current = channel.current, None
        channel.close()
        if ask is not None:
            self._deliveries.abandon(ask)
        if ask is not None and channel.at.swarm_id in self._swarms:
            self._swarms[channel.at.swarm_id].abandon(ask)
            self._desks.abandon(ask)

    # --- links (links.Owner) ------------------------------------------------------------------

    def link_up(self, key: str, *, anew: bool) -> None:
        self._links.send(key, envelope.pack("", "", self.paths.link_up(key)))
        self._reports.changed()
        for swarm_id, swarm in self._swarms.items():
            if (peer := self._known.peer(swarm_id, key)) is not None:
                swarm.link_up(peer.node_id, wants=anew)
                self._desks.link_up(swarm_id, peer.node_id)
        self._carrier.link_up(key)

    def link_down(self, key: str) -> None:
        self._reports.changed()
        for swarm_id, swarm in self._swarms.items():
            if (peer := self._known.peer(swarm_id, key)) is not None:
                swarm.link_down(peer.node_id)

    def received(self, key: str, data: Buffer) -> None:
        """Raises RemoteProtocolError."""
        said = envelope.unpack(data)
        match said.body:
            case BulkAt():
                self.paths.told(key, said.body)
                return
            case Ping(number):
                self._links.send(key, envelope.pack("", "", Pong(number)))
                return
            case Pong(number):
                self._reports.ponged(key, number)
                return
            case Aside(data):
                self.heard_aside(key, data)
                return
        peer = self._known.peer(said.swarm_id, key)
        if peer is None or said.epoch != self._known.epoch(said.swarm_id):
            # Not, or not yet, or not any more of this swarm and timeline.
            self._desks.unheard(said.swarm_id, key)
            return
        match said.body:
            case WantParcel():
                self._lending.serve(key, said, said.body)
            case NoParcel(transfer):
                self._carrier.gone(key, transfer)
            case NotNow(transfer, why):
                self._carrier.refused(key, transfer, why)
            case Introduced() | CollectiveSaid() | CollectivesHeard():
                self._swarm(said.swarm_id)
                self._desks.handle(said.swarm_id, peer.node_id, said.body)
            case _:
                self._swarm(said.swarm_id).handle(peer.node_id, said.body)

    def heard_aside(self, key: str, data: bytes) -> None:
        raise RemoteProtocolError("nodes say nothing aside")

    # --- swarms (swarm.Outside) ---------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self.say(swarm_id, peer, message)

    def release(self, value: Value) -> None:
        if not isinstance(value, bytes):
            self._parcels.release(value)

    def arrived(self, swarm_id: str, value: Value) -> None:
        if isinstance(value, Remote):
            self._parcels.want(swarm_id, value)

    def soon(self, call: Callable[[], None]) -> None:
        self._io.call(call)

    def restored(self, timeline: Timeline) -> list[Kept]:
        kept = self.spool.take(timeline)
        self._desks.restored(timeline.swarm_id, kept)
        return kept

    def keep(self, timeline: Timeline, kept: Kept, then: Job) -> None:
        self.spool.keep(timeline, kept, self._parcels.filed(kept), then)

    def keep_calls(self, at: Instance, items: tuple[KeptCall, ...], then: Job) -> None:
        self._swarm(at.swarm_id).keep(at, items, then)

    def keep_only(self, timeline: Timeline, still: Sequence[Kept], then: Job) -> None:
        self.spool.keep_only(timeline, still, then)

    def is_up(self, swarm_id: str, peer: str) -> bool:
        node = self._known.node(swarm_id, peer)
        return node is not None and self._links.is_up(node.key)

    def has_room(self, swarm_id: str, peer: str) -> bool:
        node = self._known.node(swarm_id, peer)
        return node is not None and self._links.has_room(node.key)

    # --- collectives (desks.Outside) ----------------------------------------------------------

    def say(self, swarm_id: str, peer: str, message: envelope.Body) -> None:
        node, epoch = self._known.node(swarm_id, peer), self._known.epoch(swarm_id)
        if node is not None and epoch is not None:
            self._links.send(node.key, envelope.pack(swarm_id, epoch, message))

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        if (node := self._known.node(swarm_id, peer)) is not None:
            self._links.end(node.key, why)

    def settle(self, at: Instance) -> None:
        self._daemon.settle(at)

    def bulk_peer(self, swarm_id: str, peer: str) -> BulkPeer:
        if (node := self._known.node(swarm_id, peer)) is None:
            raise LocalTransportError("its node has no part in the swarm any more")
        return self._bulk.peer(node.key)

    def post(self, call: Callable[[], None]) -> object:
        return self._io.call(call)

    # --- time ---------------------------------------------------------------------------------

    def _set_timer(self) -> None:
        times = [self._desks.due, self._carrier.due, self._deliveries.due]
        times += [swarm.due for swarm in self._swarms.values()]
        due = min((one for one in times if one is not None), default=None)
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = due, self._io.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = time.monotonic()
        for swarm in list(self._swarms.values()):
            swarm.tick(now)
        self._desks.tick(now)
        self._carrier.tick(now)
        self._deliveries.tick(now)
