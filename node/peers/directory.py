"""The directories that the manager told this node: who the nodes of each swarm are. Pure.

Each swarm's directory has a version. A change that continues ours is applied; anything else leads
to fetching the whole, which may come in several pages, and what changes meanwhile begins it anew.
The versions that come with each registration and heartbeat say which directories there should be.

| held        | same version        | another version      | not among the versions |
|-------------|---------------------|----------------------|------------------------|
| no          |                     | fetch it             |                        |
| yes         | nothing             | fetch it             | it is over             |
| in doubt    | fetch it            | fetch it             | it is over             |

A directory is *in doubt* from when a registration began, because the versions of a manager that
was restarted are others, until it was fetched: peers that speak to each other go on meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from manta.protocol.peers import Departed, Departure, FetchPeers, Peer, Peers, PeersChanged

MOST_PEERS = 20_000
"""Of one swarm. A manager that names more is not heard beyond them."""
MOST_SWARMS = 10_000


class DirectoryChanged(msgspec.Struct, frozen=True):
    """What the plane is told. `began`: whatever it knew of the swarm was of another timeline, or
    is known no more, and `peers` are all."""

    swarm_id: str
    epoch: str
    began: bool
    peers: tuple[Peer, ...] = ()
    """New, or told anew."""
    departed: tuple[Departed, ...] = ()


class DirectoryOver(msgspec.Struct, frozen=True):
    """This node has no part in the swarm any more: it speaks to nobody of it."""

    swarm_id: str


DirectoryAction = DirectoryChanged | DirectoryOver | FetchPeers
"""A FetchPeers is answered with `fetched` or `fetch_failed`."""


@dataclass
class _Directory:
    epoch: str = ""
    version: int = -1
    """-1 while nothing is held."""
    peers: dict[str, Peer] = field(default_factory=dict)
    """By node id."""
    departed: dict[str, Departed] = field(default_factory=dict)
    in_doubt: bool = False
    fetching: bool = False
    pages: list[Peers] = field(default_factory=list)
    """Those that came so far, all of one version."""
    overtook: int = -1
    """The version of the last change that came while it was fetched."""


class Directories:
    """`node_id` is this node's own; "" until it has registered."""

    def __init__(self) -> None:
        self.node_id = ""
        self._held: dict[str, _Directory] = {}

    # What is known.

    @property
    def is_empty(self) -> bool:
        """Whether this node has a part in no swarm. From any thread."""
        return not self._held

    def peer(self, swarm_id: str, node_id: str) -> Peer | None:
        held = self._held.get(swarm_id)
        return None if held is None else held.peers.get(node_id)

    def peers(self, swarm_id: str) -> tuple[Peer, ...]:
        """All that are known of a swarm. From any thread."""
        held = self._held.get(swarm_id)
        return () if held is None else tuple(held.peers.values())

    def departed(self, swarm_id: str, node_id: str) -> Departed | None:
        """Why a node is in the directory no longer, if that is known."""
        held = self._held.get(swarm_id)
        return None if held is None else held.departed.get(node_id)

    def all(self) -> list[DirectoryChanged]:
        """What a plane that knows nothing is told."""
        return [
            DirectoryChanged(
                swarm_id,
                held.epoch,
                True,
                tuple(held.peers.values()),
                tuple(held.departed.values()),
            )
            for swarm_id, held in self._held.items()
            if held.version >= 0
        ]

    # What the manager tells.

    def restarted(self) -> None:
        """What was asked is lost."""
        for swarm_id in self._held:
            self.fetch_failed(swarm_id)

    def registered(self, node_id: str, versions: Mapping[str, int]) -> list[DirectoryAction]:
        """A connection began: whatever was on its way before is void."""
        self.node_id = node_id
        for held in self._held.values():
            held.in_doubt, held.fetching, held.pages = True, False, []
        return self.heard_versions(versions)

    def heard_versions(self, versions: Mapping[str, int]) -> list[DirectoryAction]:
        """A heartbeat was answered."""
        actions: list[DirectoryAction] = []
        for swarm_id in [swarm_id for swarm_id in self._held if swarm_id not in versions]:
            actions += self.over(swarm_id)
        for swarm_id, version in versions.items():
            held = self._hold(swarm_id)
            if held is not None and (held.in_doubt or held.version != version):
                actions += self._fetch(swarm_id, held)
        return actions

    def changed(self, change: PeersChanged) -> list[DirectoryAction]:
        swarm_id = change.swarm_id
        if any(one.node_id == self.node_id for one in change.departed):
            return self.over(swarm_id)
        held = self._hold(swarm_id)
        if held is None:
            return []
        if change.since == 0:
            held.fetching = False
            return self._replace(
                swarm_id, held, change.epoch, change.version, change.peers, change.departed
            )
        if held.fetching:
            held.overtook = change.version  # the answer shows it, or is asked for again
            return []
        is_sure = held.version >= 0 and not held.in_doubt and change.epoch == held.epoch
        if is_sure and change.version == held.version:
            return []
        if not is_sure or change.since != held.version:
            return self._fetch(swarm_id, held)
        held.version = change.version
        return self._tell(swarm_id, held, change.peers, change.departed)

    def fetched(self, swarm_id: str, page: Peers) -> list[DirectoryAction]:
        """A page of the directory came, as was asked for last."""
        held = self._held.get(swarm_id)
        if held is None or not held.fetching:
            return []
        first = held.pages[0] if held.pages else page
        if (page.epoch, page.version) != (first.epoch, first.version):
            held.pages = []  # it changed meanwhile, and this is the first page of what it is now
        held.pages.append(page)
        known = sum(len(one.peers) for one in held.pages)
        if page.more and page.peers and known < MOST_PEERS:
            return [FetchPeers(swarm_id, page.version, page.peers[-1].node_id)]
        pages, held.pages, held.fetching = held.pages, [], False
        if page.version < held.overtook:
            return self._fetch(swarm_id, held)
        peers = [peer for one in pages for peer in one.peers]
        return self._replace(swarm_id, held, page.epoch, page.version, peers, pages[0].departed)

    def fetch_failed(self, swarm_id: str) -> None:
        """The next change or heartbeat asks again."""
        if (held := self._held.get(swarm_id)) is not None:
            held.fetching, held.pages = False, []

    def over(self, swarm_id: str) -> list[DirectoryAction]:
        """The swarm is, or this node's part in it."""
        held = self._held.pop(swarm_id, None)
        return [DirectoryOver(swarm_id)] if held is not None and held.version >= 0 else []

    def _hold(self, swarm_id: str) -> _Directory | None:
        """None where there are too many."""
        if swarm_id not in self._held and len(self._held) < MOST_SWARMS:
            self._held[swarm_id] = _Directory()
        return self._held.get(swarm_id)

    def _fetch(self, swarm_id: str, held: _Directory) -> list[DirectoryAction]:
        if held.fetching:
            return []
        held.fetching, held.pages, held.overtook = True, [], -1
        return [FetchPeers(swarm_id)]

    def _replace(
        self,
        swarm_id: str,
        held: _Directory,
        epoch: str,
        version: int,
        peers: Iterable[Peer],
        departed: Iterable[Departed],
    ) -> list[DirectoryAction]:
        new = {peer.node_id: peer for peer in peers}
        why = {one.node_id: one for one in departed}
        if held.version < 0 or held.epoch != epoch:
            began = _Directory(epoch, version, new, why)
            self._held[swarm_id] = began
            return [
                DirectoryChanged(swarm_id, epoch, True, tuple(new.values()), tuple(why.values()))
            ]
        gone = [
            why.get(id_) or Departed(id_, peer.alias, peer.key, Departure.OVER)
            for id_, peer in held.peers.items()
            if id_ not in new
        ]
        changed = [peer for id_, peer in new.items() if held.peers.get(id_) != peer]
        held.version, held.in_doubt, held.departed = version, False, why
        return self._tell(swarm_id, held, changed, gone)

    def _tell(
        self,
        swarm_id: str,
        held: _Directory,
        peers: Iterable[Peer],
        departed: Iterable[Departed],
    ) -> list[DirectoryAction]:
        told = tuple(
            peer for peer in peers if peer.node_id in held.peers or len(held.peers) < MOST_PEERS
        )
        gone = tuple(departed)
        for one in gone:
            held.peers.pop(one.node_id, None)
            held.departed[one.node_id] = one
        for peer in told:
            held.peers[peer.node_id] = peer
            held.departed.pop(peer.node_id, None)
        if not (told or gone):
            return []
        return [DirectoryChanged(swarm_id, held.epoch, False, told, gone)]
