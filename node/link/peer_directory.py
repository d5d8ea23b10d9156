"""Keeps what the manager tells of this node's peers (`PeerBook`), asks it for what was missed, and
tells the plane of each change."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec

from manta.actors import Actor, LocalRef, Refused
from manta.node.peers.book import PeerBook
from manta.node.peers.directory import DirectoryAction, DirectoryChanged, DirectoryOver
from manta.node.peers.rosters import RosterAction, RosterChanged, RosterDiffers, RosterNews
from manta.node.shared.addresses import PEER_HUB
from manta.node.shared.messages import AskGateway, SwarmOver
from manta.protocol.node import HeartbeatReply, Registered
from manta.protocol.paths import MANAGER_LINK
from manta.protocol.peers import FetchPeers, PeersChanged
from manta.protocol.roster import RosterTold, WantRoster

ANSWERED = 35.0
"""Seconds after which what the manager was asked counts as lost."""


class Disconnected(msgspec.Struct, frozen=True):
    """The manager cannot be reached: nothing is asked until the next registration."""


class TellPlane(msgspec.Struct, frozen=True):
    """From now on this actor is told: all anew, then each DirectoryChanged, DirectoryOver,
    RosterChanged and RosterDiffers. Whoever was told before is not any more."""

    plane: LocalRef


class TellHub(msgspec.Struct, frozen=True):
    """The peer hub has started: it is told all anew, as it is of each change of a directory."""


class NeedRoster(msgspec.Struct, frozen=True):
    """The plane wants the swarm's roster, or no longer: something waits for others there."""

    swarm_id: str
    needed: bool = True


class PeerDirectory(Actor):
    def __init__(self, book: PeerBook) -> None:
        self._book = book

    def on_start(self) -> None:
        """What a predecessor asked is lost with it; the next heartbeat shows it."""
        self._book.directories.restarted()
        self._book.behind = True
        self._hub_behind = True
        self._catch_hub_up()

    def receive(self, message: Any) -> Any:
        directories, rosters = self._book.directories, self._book.rosters
        match message:
            case PeersChanged():
                self._apply(directories.changed(message))
            case RosterTold():
                self._apply(rosters.told(message))
            case HeartbeatReply():
                self._catch_up()
                self._catch_hub_up()
                self._apply(directories.heard_versions(message.directories))
                self._apply(rosters.heard(message.rosters))
            case Registered():
                self._apply(directories.registered(message.node_id, message.directories))
                self._apply(rosters.registered(has_rosters=message.has_rosters))
            case Disconnected():
                rosters.disconnected()
            case SwarmOver(swarm_id):
                self._apply(directories.over(swarm_id))
            case NeedRoster(swarm_id, needed):
                self._apply(rosters.want(swarm_id) if needed else rosters.enough(swarm_id))
            case TellHub():
                self._hub_behind = True
                self._catch_hub_up()
            case TellPlane(plane):
                self._book.plane, self._book.behind = plane, True
                self._catch_up()
            case _:
                return super().receive(message)
        return None

    def _apply(self, actions: Iterable[DirectoryAction | RosterAction]) -> None:
        for action in actions:
            match action:
                case FetchPeers():
                    self._fetch(action)
                case WantRoster():
                    self._want(action)
                case DirectoryOver(swarm_id):
                    self._book.rosters.over(swarm_id)
                    self._tell(action)
                case DirectoryChanged() | RosterChanged() | RosterDiffers():
                    self._tell(action)
                case _:
                    assert_never(action)

    def _fetch(self, request: FetchPeers) -> None:
        directories, swarm_id = self._book.directories, request.swarm_id

        def answered(page: Any, error: BaseException | None) -> None:
            if error is None:
                self._apply(directories.fetched(swarm_id, page))
                return
            directories.fetch_failed(swarm_id)
            if isinstance(error, Refused):  # as of a swarm that has just ended
                self.log.debug("the directory of %s was not given: %s", swarm_id, error)
            else:
                self.log.warning("the directory of %s could not be fetched: %s", swarm_id, error)

        asked = self.system.ref(MANAGER_LINK).ask_future(AskGateway(request), timeout=ANSWERED)
        self.pipe(asked, answered)

    def _want(self, request: WantRoster) -> None:
        def answered(_: Any, error: BaseException | None) -> None:
            if error is not None and request.wanted:
                self._book.rosters.failed(request.swarm_id)
                self.log.debug("the roster of %s was not given: %s", request.swarm_id, error)

        asked = self.system.ref(MANAGER_LINK).ask_future(AskGateway(request), timeout=ANSWERED)
        self.pipe(asked, answered)

    def _tell(self, message: DirectoryChanged | DirectoryOver | RosterNews) -> None:
        book = self._book
        if isinstance(message, DirectoryChanged | DirectoryOver) and not self._hub_behind:
            self._hub_behind = not self.notify(PEER_HUB, message)
        if book.plane is not None and not book.behind:
            book.behind = not self.notify(book.plane, message)

    def _catch_hub_up(self) -> None:
        if self._hub_behind:
            self._hub_behind = not self.notify(PEER_HUB, self._book.all())

    def _catch_up(self) -> None:
        """Tells a plane all anew that could not be told of something."""
        book = self._book
        if book.plane is not None and book.behind:
            book.behind = not self.notify(book.plane, book.all())
