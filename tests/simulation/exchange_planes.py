"""The planes of nodes whose tasks exchange, with links, spools and values that can be lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from manta.node.peers.directory import DirectoryChanged
from manta.node.plane.copies import ValueGone
from manta.node.plane.envelope import NoParcel, NotNow, WantParcel
from manta.node.plane.fetches import LOOK, Fetch, Fetches
from manta.node.plane.requests import PlaneRequest
from manta.node.plane.spool import Timeline
from manta.node.plane.spool_records import parcels
from manta.node.plane.swarm import SwarmExchange
from manta.protocol.base import Instance
from manta.protocol.peers import Peer
from manta.protocol.roster import Roster
from manta.transports.exchange import messages
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import Remote, Value
from manta.transports.exchange.messages import Parcel
from tests.simulation.network import SWARM, Clock, Connection, Linked


class Disk:
    """What outlives a node."""

    def __init__(self) -> None:
        self.kept: dict[Timeline, list[Kept]] = {}
        self.values: set[bytes] = set()

    def delete_unnamed(self) -> None:
        self.values = {one.id for kept in self.kept.values() for one in parcels(kept)} & self.values

    def drop(self, timeline: Timeline) -> set[bytes]:
        gone = {one.id for one in parcels(self.kept.pop(timeline))}
        self.values -= gone
        return gone


class Asked:
    """A request; `ended` is called once with its answer or its error."""

    def __init__(
        self,
        plane: Plane,
        at: Instance,
        body: PlaneRequest,
        value: Value | None,
        ended: Callable[[Any, str], None],
    ) -> None:
        self.plane, self.at, self.body, self.value, self.ended = plane, at, body, value, ended
        self.until = plane.time.now + getattr(body, "timeout", math.inf)

    def tell(self, plain: str | None) -> None:
        raise AssertionError("nobody asks for a node's id here")

    def answer(self, value: Value | None) -> None:
        if isinstance(value, Remote):
            self.plane.fetch(self, value)
        elif isinstance(value, Parcel):
            assert value.id in self.plane.held, "what it is answered with is gone"
            self.ended(value.id, "")
        else:
            self.ended(value, "")

    def fail(self, kind: str, sentence: str) -> None:
        if self.value is not None:
            self.plane.release(self.value)
        self.ended(None, f"{kind}: {sentence}")


class Plane(Linked):
    """Implements `swarm.Outside` and `fetches.Shell`."""

    def __init__(self, time: Clock, name: str, disk: Disk, net: dict[str, Plane]) -> None:
        super().__init__(time, name, net)
        self.disk = disk
        disk.delete_unnamed()
        self.held = set(disk.values)
        """Values of tasks here, in memory or on disk."""
        self._jobs: deque[tuple[Callable[[], None], Callable[[], object]]] = deque()
        self._fetches = Fetches(self)
        self._fetching: dict[Remote, list[Asked]] = {}
        """Who waits for each."""
        self._expected: set[bytes] = set()
        """Transfers that are to come."""
        self.swarm = SwarmExchange(SWARM, name, self.known, self)
        self.lost: Callable[[Instance], None] = lambda at: None
        """Told of each attempt whose timeline is over."""

    # --- the daemon ---------------------------------------------------------------------------

    def introduced(self, epoch: str, names: Sequence[str]) -> None:
        former = self.known.epoch(SWARM)
        peers = tuple(Peer(name, name, f"key-{name}") for name in names)
        self.known.apply(DirectoryChanged(SWARM, epoch, former != epoch, peers))
        self._begins(epoch)
        self._fetches.directory_changed(SWARM, self.time.now)

    @property
    def epoch(self) -> str | None:
        return self.known.epoch(SWARM)

    def told(self, roster: Roster) -> None:
        self._begins(roster.epoch)
        self.time.note(self.name, f"iteration {roster.iteration}")
        self.swarm.roster_changed(roster, Timeline(SWARM, roster.epoch), self.time.now)

    def _begins(self, epoch: str) -> None:
        timeline = Timeline(SWARM, epoch)
        if self.swarm.timeline not in (None, timeline):
            former, self.swarm = self.swarm, SwarmExchange(SWARM, self.name, self.known, self)
            for at in self.swarm.take_over(former, self.time.now):
                self.lost(at)
            former.close()
        for other in [one for one in self.disk.kept if one != timeline]:
            self.held -= self.disk.drop(other)

    def crash(self) -> None:
        """What was being written may be there or not, and nobody was told."""
        for _ in range(self.time.random.randrange(len(self._jobs) + 1)):
            self._jobs.popleft()[0]()
        super().crash()

    # --- links --------------------------------------------------------------------------------

    def link_up(self, other: str, *, anew: bool) -> None:
        self.swarm.link_up(other, wants=anew)
        if not anew:
            self._fetches.link_up(f"key-{other}", self.time.now)

    def link_down(self, other: str) -> None:
        self.swarm.link_down(other)

    def received(self, connection: Connection, epoch: str | None, message: Any) -> None:
        other = connection.other(self).name
        self.time.note(self.name, f"<- {other} {message}")
        if not self.knows(other) or epoch != self.known.epoch(SWARM):
            return
        match message:
            case WantParcel():
                self._serve(other, message)
            case NoParcel(transfer):
                self._fetches.gone(f"key-{other}", transfer)
            case NotNow(transfer, why):
                self._fetches.refused(f"key-{other}", transfer, why)
            case _:
                self.swarm.handle(other, message)

    # --- values -------------------------------------------------------------------------------

    def fetch(self, asked: Asked, remote: Remote) -> None:
        """Asks its holder until it comes; a plane that restarts has other values."""
        waiting = self._fetching.setdefault(remote, [])
        waiting.append(asked)
        if len(waiting) == 1:
            was_idle = self._fetches.due is None
            self._fetches.begin(Fetch(SWARM, remote, is_asked=True), self.time.now)
            if was_idle:
                self.time.after(LOOK, self._look)

    def _look(self) -> None:
        if self.is_alive and (due := self._fetches.due) is not None:
            self._fetches.tick(self.time.now)
            self.time.after(max(0.01, due + LOOK - self.time.now), self._look)

    def _serve(self, other: str, want: WantParcel) -> None:
        """Transfers may break off, and be refused for now."""
        chance = self.time.random.random()
        if want.parcel not in self.held:
            self.send(other, NoParcel(want.transfer))
        elif chance < 0.2:
            self.time.seen["values refused"] += 1
            self.send(other, NotNow(want.transfer, "not now"))
        elif chance < 0.9:
            to, error = self.net[other], None if chance < 0.7 else OSError("it broke off")
            self.time.seen["transfers broken"] += error is not None
            self.time.soon(0.3, partial(to.transfer_ended, want.transfer, error))

    def transfer_ended(self, transfer: bytes, error: Exception | None) -> None:
        """It may have been sent twice, since it was asked for twice."""
        if self.is_alive and transfer in self._expected:
            self._expected.discard(transfer)
            self._fetches.transfer_ended(transfer, error, self.time.now)

    # --- fetches.Shell ------------------------------------------------------------------------

    def key(self, swarm_id: str, peer: str) -> str | None:
        node = self.known.node(swarm_id, peer)
        return None if node is None else node.key

    def new_id(self) -> bytes:
        return self.time.random.randbytes(16)

    def expect(self, fetch: Fetch) -> None:
        self._expected.add(fetch.transfer)

    def request(self, fetch: Fetch) -> None:
        self.send(fetch.remote.peer, WantParcel(fetch.remote.parcel.id, fetch.transfer))

    def refuse(self, fetch: Fetch, why: str) -> None:
        self.time.soon(0.1, partial(self.transfer_ended, fetch.transfer, OSError(why)))

    def done(self, fetch: Fetch, error: Exception | None) -> None:
        self.time.after(0, partial(self._came, fetch.remote, error))

    def _came(self, remote: Remote, error: Exception | None) -> None:
        if not self.is_alive:
            return
        for asked in self._fetching.pop(remote):
            if error is None:
                asked.ended(remote.parcel.id, "")
            else:
                self.time.seen["values gone"] += isinstance(error, ValueGone)
                self.swarm.lost(asked, remote, self.time.now)

    # --- swarm.Outside ------------------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self.send(peer, message)

    def release(self, value: Value) -> None:
        if isinstance(value, Parcel):
            self.held.discard(value.id)
            self.disk.values.discard(value.id)
        elif isinstance(value, Remote):
            self._fetches.give_up(value, self.time.now)

    def arrived(self, swarm_id: str, value: Value) -> None:
        pass

    def soon(self, call: Callable[[], None]) -> None:
        self.time.after(0, lambda: call() if self.is_alive else None)

    def restored(self, timeline: Timeline) -> list[Kept]:
        """What names a value that is gone comes without it, as of parcels.Parcels."""
        found = []
        for kept in self.disk.kept.get(timeline, []):
            items = tuple(
                item
                for item in kept.items
                if not isinstance(value := getattr(item, "value", b""), Parcel)
                or value.id in self.held
            )
            found.append(Kept(kept.era, kept.task, kept.rank, kept.number, items))
        return found

    def keep(self, timeline: Timeline, kept: Kept, then: Callable[[], object]) -> None:
        def write() -> None:
            self.disk.values.update(one.id for one in parcels((kept,)) if one.id in self.held)
            self.disk.kept.setdefault(timeline, []).append(kept)

        self._write(write, then)

    def keep_only(
        self, timeline: Timeline, still: Sequence[Kept], then: Callable[[], object]
    ) -> None:
        def write() -> None:
            self.disk.kept.pop(timeline, None)
            if still:
                self.disk.kept[timeline] = list(still)

        self._write(write, then)

    def _write(self, write: Callable[[], None], then: Callable[[], object]) -> None:
        self._jobs.append((write, then))
        self.time.soon(0.05, self._written)

    def _written(self) -> None:
        if self.is_alive and self._jobs:
            write, then = self._jobs.popleft()
            write()
            then()
