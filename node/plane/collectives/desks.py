"""The desks of all swarms of a plane, with what they share: memory, threads, bulk."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from manta.node.peers.known import KnownPeers
from manta.node.plane.collectives import messages
from manta.node.plane.collectives.block import is_of_size
from manta.node.plane.collectives.calls import Ask, Mover
from manta.node.plane.collectives.contributions import Contributions
from manta.node.plane.collectives.deadlines import Deadlines
from manta.node.plane.collectives.desk import Desk
from manta.node.plane.collectives.early import MessageRoom
from manta.node.plane.collectives.gathering import lasts
from manta.node.plane.collectives.lasting import Ending
from manta.node.plane.collectives.memory import Pool
from manta.node.plane.collectives.spare import Footprint, Size
from manta.node.plane.collectives.workers import Workers
from manta.node.plane.parcels import NoRoom, Parcels, Parts
from manta.node.plane.requests import MakeRoom
from manta.node.plane.shares import SharedRoom, Whose
from manta.protocol.base import Instance
from manta.protocol.roster import Roster
from manta.roster.waits import operation
from manta.transports.errors import (
    BulkError,
    LocalTransportError,
    TransferCancelled,
    TransferRefused,
)
from manta.transports.exchange.kept import Kept, KeptCall
from manta.transports.exchange.messages import Parcel
from manta.transports.sealed.peer import BulkPeer

WORKERS = 2
MOST_UNHEARD = 200
"""Swarms of which a peer has spoken before this node heard of them: of more, the latest count."""
MOST_EARLY = 10_000
"""Calls that wait for the directory of their swarm."""
SERIALS = 1 << 40
"""The first of a desk is one of these."""

log = logging.getLogger("manta.node.plane")


class Outside(Protocol):
    """What the desks have their plane do."""

    def say(self, swarm_id: str, peer: str, message: messages.Message) -> None: ...

    def is_up(self, swarm_id: str, peer: str) -> bool: ...

    def has_room(self, swarm_id: str, peer: str) -> bool:
        """Whether the link is up and takes more."""

    def cut(self, swarm_id: str, peer: str, why: str) -> None: ...

    def settle(self, at: Instance) -> None:
        """`Desks.settled` is to follow."""

    def keep_calls(
        self, at: Instance, items: tuple[KeptCall, ...], then: Callable[[], object]
    ) -> None: ...

    def bulk_peer(self, swarm_id: str, peer: str) -> BulkPeer:
        """Raises LocalTransportError where it is known no longer."""

    def post(self, call: Callable[[], None]) -> object:
        """From any thread: runs it on the plane's."""


class Desks:
    """Implements `desk.Outside` and `spare.Keeps`. All of it on the plane's thread."""

    def __init__(self, me: str, known: KnownPeers, parcels: Parcels, outside: Outside) -> None:
        self._me = me
        self._known = known
        self._parcels = parcels
        self._outside = outside
        self._pool = Pool(parcels, self.clock)
        self._pool.keeps = self
        self._message_room = MessageRoom(self._pool)
        self._contributions = Contributions(self._pool, self)
        self._workers = Workers(WORKERS)
        self._desks: dict[str, Desk] = {}
        self._early: dict[Ask, float] = {}
        """Calls that came before the directory of their swarm, and when."""
        self._early_until = Deadlines[Ask](lambda ask, _: ask in self._early)
        self._call_room = SharedRoom(MOST_EARLY)
        self._unheard: dict[str, dict[str, None]] = {}
        """By key: swarms that it spoke of and this node had not heard of yet."""

    @property
    def all(self) -> list[Desk]:
        return list(self._desks.values())

    def desk(self, swarm_id: str) -> Desk | None:
        """None for a swarm in which this node has no part."""
        found, epoch = self._desks.get(swarm_id), self._known.epoch(swarm_id)
        if found is None and epoch is not None:
            token, first = secrets.token_bytes(8), secrets.randbelow(SERIALS)
            found = self._desks[swarm_id] = Desk(
                swarm_id,
                epoch,
                self._me,
                token,
                first,
                self._known,
                self._pool,
                self._message_room,
                self,
            )
            for node in self._known.nodes(swarm_id):
                if node != self._me and self._outside.is_up(swarm_id, node):
                    found.peers.link_up(node)
        return found

    # --- attempts -----------------------------------------------------------------------------

    def take(self, ask: Ask) -> None:
        if isinstance(ask.body, MakeRoom):
            self._make_room(ask)
        elif (desk := self.desk(ask.at.swarm_id)) is not None:
            desk.ask(ask, self.clock())
        elif self._call_room.fits(ask.at.swarm_id, 1):
            self._call_room.take(ask.at.swarm_id, 1)
            self._early[ask] = now = self.clock()
            self._early_until.add(now + lasts(ask.body), ask)
        else:
            room, swarm_id = self._call_room, ask.at.swarm_id
            ask.fail(
                "ResourceExhaustionError",
                f"{room.used:,} calls wait until this node hears who takes part in their swarms, "
                f"of at most {room.most:,}, {room.of(swarm_id):,} of them for this swarm, which "
                f"may have {room.allows(swarm_id):,} beside the others: look whether the node "
                "reaches its manager, or have fewer threads call.",
            )

    def _make_room(self, ask: Ask) -> None:
        try:
            block = self._pool.room(ask.at, ask.connection, ask.body.size)
        except NoRoom as error:
            log.info("An array of %s is handed in: %s", ask.at, error)
            block = None
        mapped: tuple[int, ...] = ask.body.mapped
        gone = [number for number in mapped if not self._pool.has_room(ask.at, number)]
        told = {"k": "answer", "n": ask.body.n, "room": 0, "gone": gone}
        if block is not None:
            told |= {"room": block.number, "size": block.size}
        if block is None or block.number in mapped:
            ask.reply(told, [])
        else:
            ask.reply({**told, "fds": 1}, [block.fd])

    def _ask_early(self) -> None:
        for ask, since in list(self._early.items()):
            if (desk := self.desk(ask.at.swarm_id)) is not None:
                self._leave_early(ask)
                desk.ask(ask, since)

    def _leave_early(self, ask: Ask) -> None:
        del self._early[ask]
        self._call_room.give(ask.at.swarm_id, 1)

    def _drop_early(self, which: Callable[[Ask], bool]) -> None:
        for ask in [ask for ask in self._early if which(ask)]:
            sentence = f"{ask.at} was ended: it waits for nothing any more."
            self._fail_early(ask, "SwarmStopped", sentence)

    def _fail_early(self, ask: Ask, error: str, sentence: str) -> None:
        self._leave_early(ask)
        self._contributions.drop(ask)
        ask.fail(error, sentence)

    def abandon(self, ask: Ask) -> None:
        if ask in self._early:
            self._leave_early(ask)
            self._contributions.drop(ask)
        elif (desk := self._desks.get(ask.at.swarm_id)) is not None:
            desk.abandon(ask)

    def disconnected(self, at: Instance, connection: int) -> None:
        """Nothing more comes over a connection of the attempt."""
        self._pool.leave(at, connection)

    def ends(self, at: Instance, then: Callable[[], object], *, counts: bool) -> Ending:
        """What of its calls, if it counts, must outlive this process before `then` is called."""
        desk = self._desks.get(at.swarm_id) if counts else None
        if desk is None or desk.roster is None:
            return Ending(then)
        return desk.lasting.ends(at, desk.roster, then)

    def restored(self, swarm_id: str, kept: Iterable[Kept]) -> None:
        """What was kept of the swarm before this process began."""
        if (desk := self.desk(swarm_id)) is not None:
            desk.lasting.restore(kept)

    def end(self, at: Instance, *, is_gone: bool = False) -> None:
        """The attempt is over; its connections are closed. `is_gone`: so is its process."""
        self._drop_early(lambda ask: ask.at == at)
        if (desk := self._desks.get(at.swarm_id)) is not None:
            desk.settling.forget(at)
        self._pool.forget(at, is_gone=is_gone)

    def settled(self, at: Instance) -> None:
        """The manager has applied what the attempt had written when `settle` was called."""
        if (desk := self._desks.get(at.swarm_id)) is not None:
            desk.settled(at)

    # --- what the node is told ----------------------------------------------------------------

    def roster_changed(self, swarm_id: str, roster: Roster) -> None:
        if (desk := self.desk(swarm_id)) is not None:
            desk.roster_changed(roster)

    def directory_changed(self, swarm_id: str, departed: list[str]) -> None:
        if (desk := self._desks.get(swarm_id)) is not None:
            for node in departed:
                desk.peer_lost(node, "its node was lost")
            desk.look_again()

    def forget(self, swarm_id: str) -> None:
        """The swarm, or its timeline, is over here."""
        self._drop_early(lambda ask: ask.at.swarm_id == swarm_id)
        if (desk := self._desks.pop(swarm_id, None)) is not None:
            desk.close()
        self._pool.end_swarm(swarm_id)

    def unheard(self, swarm_id: str, key: str) -> None:
        """A peer speaks of a swarm, or timeline, that this node has not heard of: once it has, the
        peer is to say it again."""
        spoken = self._unheard.setdefault(key, {})
        spoken.pop(swarm_id, None)
        spoken[swarm_id] = None
        if len(spoken) > MOST_UNHEARD:
            del spoken[next(iter(spoken))]

    def directories_changed(self) -> list[str]:
        """Forgets swarms whose timeline is another. Returns those of which peers have spoken."""
        for swarm_id, desk in list(self._desks.items()):
            if self._known.epoch(swarm_id) != desk.epoch:
                self.forget(swarm_id)
        found = []
        for key, swarms in list(self._unheard.items()):
            for swarm_id in list(swarms):
                if (peer := self._known.peer(swarm_id, key)) is not None:
                    del swarms[swarm_id]
                    self.link_up(swarm_id, peer.node_id)
                    found.append(swarm_id)
            if not swarms or not self._known.is_known(key):
                del self._unheard[key]
        self._ask_early()
        return found

    def link_up(self, swarm_id: str, node: str) -> None:
        if (desk := self.desk(swarm_id)) is not None:
            desk.peers.link_up(node)

    def handle(self, swarm_id: str, node: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError."""
        if (desk := self.desk(swarm_id)) is not None:
            desk.peers.handle(node, message)

    def close(self) -> None:
        for swarm_id in list(self._desks):
            self.forget(swarm_id)
        self._workers.close()
        self._pool.close()

    # --- time ---------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        desks = (desk.due for desk in self._desks.values())
        times = (self._pool.due, self._early_until.due, *desks)
        return min((one for one in times if one is not None), default=None)

    def tick(self, now: float) -> None:
        self._pool.tick(now)
        for ask in self._early_until.take(now):
            sentence = (
                f"Waited {ask.body.timeout:g} s in vain: {operation(ask.body.words)} waits until "
                "this node hears where the swarm's instances are. It was not told yet who takes "
                "part in it; look whether it reaches its manager."
            )
            self._fail_early(ask, "Timeout", sentence)
        for desk in list(self._desks.values()):
            desk.tick(now)

    def clock(self) -> float:
        return time.monotonic()

    # --- Outside of desks -----------------------------------------------------------------------

    def tell(self, swarm_id: str, peer: str, message: messages.Message) -> None:
        self._outside.say(swarm_id, peer, message)

    def is_up(self, swarm_id: str, peer: str) -> bool:
        return self._outside.is_up(swarm_id, peer)

    def has_room(self, swarm_id: str, peer: str) -> bool:
        return self._outside.has_room(swarm_id, peer)

    def cut(self, swarm_id: str, peer: str, why: str) -> None:
        self._outside.cut(swarm_id, peer, why)

    def settle(self, at: Instance) -> None:
        self._outside.settle(at)

    def move(self, swarm_id: str, peer: str) -> Mover:
        try:
            bulk = self._outside.bulk_peer(swarm_id, peer)
        except LocalTransportError:
            return Nowhere(self._outside.post)
        return _Bulk(bulk, self._outside.post)

    def work(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._workers.do(partial(self._try, job, then))

    def on_disk(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        self._parcels.on_disk(partial(self._try, job, then))

    def _try(self, job: Callable[[], None], then: Callable[[Exception | None], None]) -> None:
        """On another thread."""
        try:
            job()
        except Exception as error:
            self._outside.post(partial(then, error))
        else:
            self._outside.post(partial(then, None))

    def release(self, value: Parcel) -> None:
        self._parcels.release(value)

    def keep(self, at: Instance, items: tuple[KeptCall, ...], then: Callable[[], object]) -> None:
        self._outside.keep_calls(at, items, then)

    def file(self, swarm_id: str, size: int, parts: Parts) -> Parcel:
        return self._parcels.file(swarm_id, size, parts)

    def read(self, value: bytes | Parcel, into: memoryview, at: int) -> None:
        self._parcels.read(value, into, at)

    def own(self, parcel: bytes) -> int | None:
        return self._parcels.held(parcel)

    def memfd(self, parcel: bytes) -> int:
        found = self._parcels.own(parcel)
        return found.fd if found is not None and found.in_memory else -1

    # --- what calls that are over keep (spare.Keeps) --------------------------------------------

    def small(self) -> dict[str, int]:
        return {swarm_id: desk.calls.small() for swarm_id, desk in self._desks.items()}

    def spill(self, whose: Whose) -> bool:
        return any(desk.calls.spill_oldest() for desk in self._of(whose))

    def given(self) -> dict[str, Footprint]:
        return {swarm_id: desk.calls.given for swarm_id, desk in self._desks.items()}

    def let_go(self, whose: Whose, size: Size) -> bool:
        return any(desk.calls.let_go_oldest(size) for desk in self._of(whose))

    def _of(self, whose: Whose) -> list[Desk]:
        return [desk for swarm_id, desk in self._desks.items() if whose(swarm_id)]


class _Bulk:
    """Bulk with one peer, as a desk uses it."""

    def __init__(self, peer: BulkPeer, post: Callable[[Callable[[], None]], object]) -> None:
        self._peer = peer
        self._post = post

    def expect(
        self,
        transfer: bytes,
        memory: memoryview,
        progress: Callable[[int], None],
        done: Callable[[str | None], None],
        adopted: Callable[[int], None] | None,
    ) -> None:
        ended = self._ended(done, (TransferCancelled,))

        def came(upto: int) -> None:
            if upto < len(memory):  # else `done` follows, and says as much
                self._post(partial(progress, upto))

        def place(memfd: int) -> memoryview | None:  # on a thread of the bulk's
            if memfd < 0 or adopted is None or not is_of_size(memfd, len(memory)):
                return memory
            try:
                own = os.dup(memfd)
            except OSError as error:
                log.info("A value of %r is copied: %s", self._peer, error)
                return memory
            self._post(partial(adopted, own))
            return None

        try:
            if adopted is None:
                self._peer.expect(transfer, memory, done=ended, progress=came)
            else:
                self._peer.adopt(transfer, len(memory), place, done=ended, progress=came)
        except (BulkError, LocalTransportError) as error:
            self._post(partial(done, str(error)))

    def send(
        self,
        transfer: bytes,
        memory: memoryview,
        done: Callable[[str | None], None],
        memfd: int,
        at: int,
    ) -> None:
        # Nothing is sent before its receiver wants it: one that refuses it has decided otherwise.
        ended = self._ended(done, (TransferCancelled, TransferRefused))
        try:
            passed = os.dup(memfd) if memfd >= 0 else -1  # it is passed when its turn comes
        except OSError as error:
            log.info("A value is copied to %r: %s", self._peer, error)
            passed = -1

        def over(error: BulkError | None) -> None:
            if passed >= 0:
                os.close(passed)
            # Who refuses it has failed and says so, or began anew and has forgotten it.
            ended(TransferCancelled(str(error)) if isinstance(error, TransferRefused) else error)

        try:
            self._peer.send(transfer, [memory], ready=0, done=over, memfd=passed, at=at)
        except (BulkError, LocalTransportError) as error:
            if passed >= 0:
                os.close(passed)
            self._post(partial(done, str(error)))

    def ready(self, transfer: bytes, upto: int) -> None:
        self._peer.ready(transfer, upto)

    def cancel(self, transfer: bytes) -> None:
        self._peer.cancel(transfer, "it is of no use any more")

    def refuse(self, transfer: bytes) -> None:
        self._peer.refuse(transfer, "it is of no use any more")

    def _ended(
        self, done: Callable[[str | None], None], given_up: tuple[type[BulkError], ...]
    ) -> Callable[[BulkError | None], None]:
        """`given_up`: how a transfer ends that the other end wants no longer."""

        def ended(error: BulkError | None) -> None:  # on a thread of the bulk's
            why = "" if error is None else str(error)
            self._post(partial(done, None if isinstance(error, given_up) else why))

        return ended


class Nowhere:
    """Bulk with a peer that is known no longer: it is given up. What that costs a call is decided
    where it is told that the peer is lost."""

    def __init__(self, post: Callable[[Callable[[], None]], object]) -> None:
        self._post = post

    def expect(
        self,
        transfer: bytes,
        memory: memoryview,
        progress: Callable[[int], None],
        done: Callable[[str | None], None],
        adopted: Callable[[int], None] | None,
    ) -> None:
        self._post(partial(done, None))

    def send(
        self,
        transfer: bytes,
        memory: memoryview,
        done: Callable[[str | None], None],
        memfd: int,
        at: int,
    ) -> None:
        self._post(partial(done, None))

    def ready(self, transfer: bytes, upto: int) -> None:
        """Nobody takes it."""

    def cancel(self, transfer: bytes) -> None:
        """It has ended."""

    def refuse(self, transfer: bytes) -> None:
        """It has ended."""
