"""The actor that keeps the plane: begins it when a task first exchanges, and speaks to it.

It begins as well when another node knocks: what that has for this one need not wait until a task
here asks for it. Whoever connects is seen by that, and neither accepted nor read before the plane
does.

It lives as long as its plane. When that ends it ends, too, and its supervisor begins another; the
attempts that had a connection are told to their supervisors, who end them.
"""

from __future__ import annotations

import os
import socket
import time
from typing import Any, ClassVar

import msgspec

from manta.actors import Actor, ActorDead, ExitReason, MailboxFull, MailboxPolicy, Refused
from manta.actors.replies import Reply
from manta.node.link.peer_directory import NeedRoster, TellPlane
from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.rosters import RosterChanged, RosterDiffers
from manta.node.plane import orders
from manta.node.plane.door import Door
from manta.node.plane.process import PlaneProcess
from manta.node.plane.spool import keeps_anything
from manta.node.shared.addresses import PEER_DIRECTORY
from manta.node.shared.context import NodeContext
from manta.node.shared.messages import Connect, EndExchange, ExchangeBroken, ExchangeLost
from manta.node.task_server.messages import Descriptor
from manta.protocol.base import Instance
from manta.protocol.codes import Code
from manta.transports.errors import remedied

_SOON = 0.01
"""Seconds until an actor that takes no more is told again."""


_PAUSE = 2.0
"""Seconds for which nobody is listened to who knocks at a node that has no part in any swarm."""


class PlaneEnded(Exception):
    """The plane's process is gone."""


class _Gone(msgspec.Struct, frozen=True):
    how: str


class _Knocked(msgspec.Struct, frozen=True):
    """Somebody connects."""


class _Listen(msgspec.Struct, frozen=True):
    pass


class _Begin(msgspec.Struct, frozen=True):
    """Once more: it could not be begun before."""


class _Attempt(msgspec.Struct):
    owner: str
    ending: Reply | None = None


class PlaneKeeper(Actor):
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy(bound=100_000)

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._process: PlaneProcess | None = None
        self._attempts: dict[Instance, _Attempt] = {}
        """Those that were given a connection."""
        self._stopping = False
        self._door: Door | None = None

    def on_start(self) -> None:
        """Begins one at once if others may ask for what one before has kept."""
        if self._node_id() and keeps_anything(self._context.state.plane):
            self._try(_Begin())
        else:
            self._listen()

    def on_stop(self, reason: ExitReason) -> None:
        self._stopping = True
        self._close_door()
        if self._process is not None:
            self._process.close()
            self._context.peers.links.told(())
        for instance, attempt in self._attempts.items():
            self.notify(attempt.owner, ExchangeLost(instance))

    def receive(self, message: Any) -> Any:
        match message:
            case Connect(instance, owner):
                return self._connect(instance, owner)
            case EndExchange(instance, counts):
                return self._end(instance, counts=counts)
            case PeersAnew(directories, rosters):
                self._tell(orders.Anew(directories, rosters))
            case DirectoryChanged():
                self._tell(orders.Changed(message))
            case DirectoryOver():
                self._tell(orders.Over(message))
            case RosterChanged() | RosterDiffers():
                self._tell(orders.Rostered(message))
            case orders.Serving():
                self.log.info("the plane serves")
            case orders.Want(swarm_id, wanted):
                self.notify(PEER_DIRECTORY, NeedRoster(swarm_id, wanted))
            case orders.Broke(at, why):
                if (attempt := self._attempts.get(at)) is not None:
                    self.notify(attempt.owner, ExchangeBroken(at, why))
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
            case _Listen():
                self._listen()
            case _Begin():
                self._try(message)
            case _Gone(how):
                raise PlaneEnded(f"the plane {how}")
            case _:
                return super().receive(message)
        return None

    def _listen(self) -> None:
        if self._process is None and (listening := self._context.peer_socket) is not None:
            self._close_door()
            self._door = Door(listening.fd, lambda: self.notify(self.ref, _Knocked()))

    def _close_door(self) -> None:
        if self._door is not None:
            self._door.close()
            self._door = None

    def _knocked(self) -> None:
        if self._process is not None:
            return
        if self._context.peers.directories.is_empty:  # nobody has anything to say to this node
            self.after(_PAUSE, _Listen())
            return
        self._try(_Listen())

    def _try(self, again: _Begin | _Listen) -> None:
        """Begins it, or tells itself that after a pause."""
        if self._process is not None:
            return
        try:
            self._begin()
        except OSError as error:
            self.log.error("the plane could not be started: %s", remedied(error))
            self.after(_PAUSE, again)

    def _connect(self, instance: Instance, owner: str) -> Descriptor:
        try:
            process = self._process or self._begin()
            ours, theirs = socket.socketpair()
        except OSError as error:
            self.after(_PAUSE, _Listen())  # the door may have been closed for it
            sentence = f"The node could give {instance} no connection to others: {remedied(error)}."
            raise Refused(Code.UNAVAILABLE, sentence) from error
        end = Descriptor(theirs.detach())
        self._attempts.setdefault(instance, _Attempt(owner)).owner = owner
        process.send(orders.Attach(instance), [ours.detach()])
        return end

    def _end(self, instance: Instance, *, counts: bool) -> bool | None:
        """False of one that is not known here: its plane is gone."""
        attempt = self._attempts.get(instance)
        if attempt is None:
            return False
        attempt.ending = self.defer()
        self._tell(orders.End(instance, counts))
        return None

    def _begin(self) -> PlaneProcess:
        """Raises OSError."""
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
        self._process = PlaneProcess(serve, fds, self._heard, lambda how: self._heard(_Gone(how)))
        self.log.info("the plane begins, with process id %d", self._process.pid)
        self.notify(PEER_DIRECTORY, TellPlane(self.ref))
        return self._process

    def _node_id(self) -> str:
        identity = self._context.identity
        return (identity.node_id if identity else "") or self._context.peers.directories.node_id

    def _tell(self, order: orders.ToPlane) -> None:
        if self._process is not None:
            self._process.send(order)

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
