"""The actor that keeps the plane: begins it when a task first exchanges, and speaks to it.

It begins as well when another node knocks: what that has for this one need not wait until a task
here asks for it. Whoever connects is seen by that, and neither accepted nor read before the plane
does. And it begins when the manager names the nodes of a swarm of which a plane before has kept
something: others may ask for that. For what is kept of any other swarm none begins.

A plane that cannot be begun, or ends, costs nothing but itself and the attempts that had a
connection, whose supervisors are told and end them. It is begun again after a pause, which grows
while that happens soon again.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import msgspec

from manta.actors import (
    Actor,
    ActorDead,
    ExitReason,
    MailboxFull,
    MailboxPolicy,
    Refused,
)
from manta.actors.replies import Reply
from manta.node.link.peer_directory import NeedRoster, TellPlane
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.rosters import RosterChanged, RosterDiffers
from manta.node.plane import orders
from manta.node.plane.door import Door
from manta.node.plane.kept_swarms import KeptSwarms
from manta.node.plane.pauses import Pauses
from manta.node.plane.process import PlaneGone, PlaneProcess
from manta.node.shared.addresses import PEER_DIRECTORY
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import (
    AwaitWrites,
    Connect,
    EndExchange,
    ExchangeBroken,
    ExchangeLost,
)
from manta.node.task_server.messages import Descriptor
from manta.protocol.base import Instance
from manta.protocol.codes import Code
from manta.protocol.node import HeartbeatReply
from manta.protocol.paths import MANAGER_LINK
from manta.transports.errors import remedied

_SOON = 0.01
"""Seconds until an actor that takes no more is told again."""
SETTLING = 3600.0
"""Seconds for which it is waited for a manager that is away, at a time."""
_AGAIN = 0.5
"""Seconds until it is asked again, by when a link that has failed is begun anew."""
_PAUSE = 2.0
"""Seconds for which nobody is listened to who knocks at a node that has no part in any swarm."""


class _Gone(msgspec.Struct, frozen=True):
    number: int
    """Of the plane: they are counted."""
    how: str


class _Settle(msgspec.Struct, frozen=True):
    """The plane of that number is to hear when the manager has what the attempt wrote."""

    number: int
    at: Instance


class _Knocked(msgspec.Struct, frozen=True):
    """Somebody connects."""


class _Resume(msgspec.Struct, frozen=True):
    """A pause is over."""


class _Attempt(msgspec.Struct):
    owner: str
    ending: Reply | None = None


class PlaneKeeper(Actor):
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy(bound=100_000)

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._process: PlaneProcess | None = None
        self._number = 0
        self._pauses = Pauses()
        self._attempts: dict[Instance, _Attempt] = {}
        """Those that were given a connection."""
        self._waiting: list[tuple[Connect, Reply]] = []
        """Those that are given one after the pause."""
        self._stopping = False
        self._door: Door | None = None
        self._kept = KeptSwarms(context.state.plane)
        self._worker = ThreadPoolExecutor(1, "manta-plane-spool")
        self._is_deleting = False
        self._over: tuple[str, ...] = ()
        """Swarms of which something was to be deleted last."""

    def on_start(self) -> None:
        self._resume()

    def on_stop(self, reason: ExitReason) -> None:
        self._stopping = True
        self._close_door()
        self._worker.shutdown(wait=False)
        if self._process is not None:
            self._process.close()
            self._context.peers.links.told(())
        for instance, attempt in self._attempts.items():
            self.notify(attempt.owner, ExchangeLost(instance))

    def receive(self, message: Any) -> Any:
        match message:
            case Connect():
                self._waiting.append((message, self.defer()))
                self._connect_waiting()
            case EndExchange(instance, counts, is_gone):
                return self._end(instance, counts=counts, is_gone=is_gone)
            case HeartbeatReply(ended=ended):
                self._look()
                self._forget(ended)
            case PeersAnew(directories, rosters):
                self._tell(orders.Anew(directories, rosters))
                self._named(one.swarm_id for one in directories)
            case DirectoryChanged(swarm_id):
                self._tell(orders.Changed(message))
                self._named((swarm_id,))
            case DirectoryOver():
                self._tell(orders.Over(message))
            case RosterChanged() | RosterDiffers():
                self._tell(orders.Rostered(message))
            case orders.Serving():
                self.log.info("the plane serves")
            case orders.Want(swarm_id, wanted):
                self.notify(PEER_DIRECTORY, NeedRoster(swarm_id, wanted))
            case orders.Settle(at):
                self._settle(_Settle(self._number, at))
            case _Settle():
                self._settle(message)
            case orders.Broke(at, why):
                if (attempt := self._attempts.get(at)) is not None:
                    self.notify(attempt.owner, ExchangeBroken(at, why))
            case orders.Stopped(at, size, why):
                self._context.gate.stopped_at_plane(at, size, why, self.clock.wall())
            case orders.Summed(at, size):
                self._context.gate.summed(at)
                self._context.audit.summed(at, size, self.clock.wall())
            case orders.Lost(at, how):
                if (attempt := self._attempts.get(at)) is not None:
                    self.notify(attempt.owner, ExchangeLost(at, how))
            case orders.Linked(links):
                self._context.peers.links.told(links)
            case orders.Ended(at):
                attempt = self._attempts.pop(at, None)
                if attempt is not None and attempt.ending is not None:
                    attempt.ending.set(True)
            case _Knocked():
                self._knocked()
            case _Resume():
                self._resume()
            case _Gone(number, how):
                if number == self._number:
                    self._lose(how)
            case _:
                return super().receive(message)
        return None

    # --- when a plane begins ------------------------------------------------------------------

    def _resume(self) -> None:
        """What there is to do while no plane runs."""
        self._look()
        self._connect_waiting()
        if self._process is not None or self._is_pausing:
            return
        if self._context.spools:  # those of which the manager names nodes are worth a plane
            self.notify(PEER_DIRECTORY, TellPlane(self.ref))
        try:
            self._listen()
        except (OSError, RuntimeError) as error:
            self._failed(f"nobody can be heard who connects: {_why(error)}")

    def _listen(self) -> None:
        """Raises OSError, RuntimeError."""
        if self._process is None and (listening := self._context.peer_socket) is not None:
            self._close_door()
            self._door = Door(listening.fd, lambda: self.notify(self.ref, _Knocked()))

    def _close_door(self) -> None:
        if self._door is not None:
            door, self._door = self._door, None
            door.close()

    @property
    def _is_pausing(self) -> bool:
        return self.clock.now() < self._pauses.until

    def _failed(self, why: str) -> None:
        pause = self._pauses.failed(self.clock.now())
        after = f" after {pause:g} s" if pause else ""
        self.log.error("%s; it is tried again%s", why, after)
        self.after(pause, _Resume())

    def _knocked(self) -> None:
        if self._process is None and self._context.peers.directories.is_empty:
            self.after(_PAUSE, _Resume())  # nobody has anything to say to this node
        else:
            self._try()

    def _named(self, swarm_ids: Iterable[str]) -> None:
        """The manager names the nodes of these swarms."""
        if not self._context.spools or self._process is not None:
            return
        if not set(self._context.spools).isdisjoint(swarm_ids):
            self._try()

    def _try(self) -> None:
        if self._process is None and not self._is_pausing:
            try:
                self._begin()
            except (OSError, RuntimeError) as error:
                self._failed(f"the plane could not be started: {_why(error)}")

    def _lose(self, how: str) -> None:
        """The plane has ended, or is to end."""
        process, self._process = self._process, None
        if process is None:
            return
        process.close()
        self._context.peers.links.told(())
        attempts, self._attempts = self._attempts, {}
        for instance, attempt in attempts.items():
            self.notify(attempt.owner, ExchangeLost(instance))
            if attempt.ending is not None:
                attempt.ending.set(False)
        self._failed(f"the plane {how}")

    # --- attempts -----------------------------------------------------------------------------

    def _connect_waiting(self) -> None:
        while self._waiting and (self._process is not None or not self._is_pausing):
            message, reply = self._waiting.pop(0)
            try:
                end = self._connect(message)
            except Refused as refused:
                reply.fail(refused)
            else:
                reply.set(end)

    def _connect(self, message: Connect) -> Descriptor:
        """Raises Refused."""
        instance, owner = message.instance, message.owner
        what = f"The node could give {instance} no connection to others"
        process = self._process
        try:
            process = process or self._begin()
            ours, theirs = socket.socketpair()
        except (OSError, RuntimeError) as error:
            sentence = f"{what}: {_why(error)}."
            if process is None:
                self._failed(sentence.removesuffix("."))
            raise Refused(Code.UNAVAILABLE, sentence) from error
        end = Descriptor(theirs.detach())
        self._attempts.setdefault(instance, _Attempt(owner)).owner = owner
        self._tell(orders.Attach(instance, message.sums), ours.detach())
        return end

    def _end(self, instance: Instance, *, counts: bool, is_gone: bool) -> bool | None:
        """False of one that is not known here: its plane is gone."""
        attempt = self._attempts.get(instance)
        if attempt is None:
            return False
        attempt.ending = self.defer()
        self._tell(orders.End(instance, counts, is_gone))
        return None

    def _settle(self, wanted: _Settle) -> None:
        number, at = wanted.number, wanted.at

        def answered(_: Any, error: BaseException | None) -> None:
            if number != self._number or at not in self._attempts:
                return
            if error is None:
                self._tell(orders.Settled(at))
            else:
                self.log.warning("%s waits for what it wrote: %s; it is asked again", at, error)
                self.after(_AGAIN, wanted)

        link = self.system.ref(MANAGER_LINK)
        self.pipe(link.ask_future(AwaitWrites(at), timeout=SETTLING), answered)

    # --- what is kept -------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            self._context.spools = tuple(sorted(self._kept.look()))
        except OSError as error:
            self.log.error("%s cannot be read: %s", self._context.state.plane, remedied(error))

    def _forget(self, ended: Iterable[str]) -> None:
        """These swarms are over, says the manager."""
        over = tuple(sorted(set(ended).intersection(self._context.spools)))
        if over and over != self._over:
            names = ", ".join(over)
            self.log.info("what tasks told each other goes, of swarms that are over: %s", names)
        self._over = over
        if not over or self._is_deleting:
            return
        if self._process is not None:
            self._tell(orders.Forget(over))
            return
        self._is_deleting = True
        self.pipe(self._worker.submit(self._kept.forget, over), self._forgotten)

    def _forgotten(self, _: bool | None, error: BaseException | None) -> None:
        """What is left is named with the next heartbeat, and deleted then."""
        self._is_deleting = False
        if error is not None:
            self.log.error("what swarms that are over left does not go: %s", error)
        self._look()

    # --- the process --------------------------------------------------------------------------

    def _begin(self) -> PlaneProcess:
        """Raises OSError, RuntimeError."""
        self._close_door()
        context, listening = self._context, self._context.peer_socket
        folder = context.state.plane
        folder.mkdir(mode=0o700, exist_ok=True)
        serve = orders.Serve(
            self._node_id(),
            context.keys.public,
            context.keys.secret,
            context.value_memory,
            os.fspath(folder),
            listens=listening is not None,
            over_links=context.config.peers_bulk_cipher == "curve",
            is_local=context.config.peers_links == "local",
            relay=(context.config.manager_address, context.manager_key),
        )
        fds = [one.fd for one in (listening, context.bulk_socket) if one is not None]
        self._number += 1
        gone = partial(_Gone, self._number)
        self._process = PlaneProcess(serve, fds, self._heard, lambda how: self._heard(gone(how)))
        self._pauses.began(self.clock.now())
        self.log.info("the plane begins, with process id %d", self._process.pid)
        self.notify(PEER_DIRECTORY, TellPlane(self.ref))
        return self._process

    def _node_id(self) -> str:
        identity = self._context.identity
        return (identity.node_id if identity else "") or self._context.peers.directories.node_id

    def _tell(self, order: orders.ToPlane, *fds: int) -> None:
        """Takes over the descriptors."""
        if self._process is None:
            return
        try:
            self._process.send(order, fds)
        except PlaneGone as error:
            self._lose(f"is ended: {error}")

    def _heard(self, message: orders.ToDaemon | _Gone) -> None:
        """Called on threads of the process's. Nothing that it says may be lost."""
        while not self._stopping:
            try:
                self.ref.tell(message)
            except MailboxFull:
                time.sleep(_SOON)
            except ActorDead:
                return
            else:
                return


def _why(error: OSError | RuntimeError) -> str:
    return remedied(error) if isinstance(error, OSError) else str(error)
