"""What a plane is told of a mesh: directories and rosters, as a node's is by its manager. Pure.

Letters and broadcasts are those of one swarm, in which each peer is a task of its own, for good.
Collectives are those of a swarm for each view, in which the members are the instances of a task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from manta.mesh.views import View
from manta.node.peers.directory import DirectoryChanged
from manta.node.peers.rosters import RosterChanged
from manta.protocol.base import Instance
from manta.protocol.peers import Departed, Departure, Peer
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.protocol.states import AttemptState

MESH = "mesh"
"""The swarm of letters; the timeline of all."""
LINKS = "links"
"""The swarm of all with whom there is to be a link: the dead as well, since a parted mesh heals."""
MEMBER = "peer"
"""The task whose instances are a view's members."""


def id_of(key: str) -> str:
    """A peer's id: 16 characters that follow from its public key."""
    return hashlib.blake2b(key.encode("ascii"), digest_size=8).hexdigest()


class Known(NamedTuple):
    """A peer, and why nothing more comes of it, if so."""

    peer: Peer
    lost: str = ""
    has_left: bool = False


def swarm_of(token: str) -> str:
    return f"view {token}"


def speaker(me: str) -> Instance:
    """Who sends letters."""
    return Instance(MESH, me, 0, 0)


def member(view: View, me: str) -> Instance:
    """Who calls the collectives of a view."""
    return Instance(swarm_of(view.token), MEMBER, view.members.index(me), 0)


def introduced(
    peers: Iterable[Peer], swarm_id: str = MESH, *, began: bool = False
) -> DirectoryChanged:
    return DirectoryChanged(swarm_id, MESH, began, tuple(peers))


def departed(peer: Peer, swarm_id: str, why: Departure, sentence: str) -> DirectoryChanged:
    gone = Departed(peer.node_id, peer.alias, peer.key, why, sentence)
    return DirectoryChanged(swarm_id, MESH, False, (), (gone,))


def letters(known: Iterable[Known], edges: Sequence[tuple[str, str]] | None) -> RosterChanged:
    """`edges` are pairs of ids that may talk, None where all may."""
    network = None if edges is None else MESH
    tasks = {
        one.peer.node_id: RosterTask(
            one.peer.node_id,
            "RUNNING",
            1,
            network=network,
            instances=(_instance(0, one.peer, one.lost, has_left=one.has_left),),
        )
        for one in known
    }
    networks = {} if edges is None else {MESH: NetworkSpec(MESH, "edges", tuple(edges))}
    return RosterChanged(MESH, Roster(MESH, 0, tasks, networks, is_final=True))


def directory(view: View, peers: Mapping[str, Peer]) -> DirectoryChanged:
    members = tuple(peers[one] for one in view.members if one in peers)
    return DirectoryChanged(swarm_of(view.token), MESH, True, members)


def collectives(view: View, peers: Mapping[str, Peer], lost: Mapping[str, str]) -> RosterChanged:
    """`lost`: why each of those members will make no further call."""
    instances = tuple(
        _instance(rank, peers[one], lost.get(one, "")) for rank, one in enumerate(view.members)
    )
    task = RosterTask(MEMBER, "RUNNING", len(instances), instances=instances)
    return RosterChanged(swarm_of(view.token), Roster(MESH, 0, {MEMBER: task}, {}))


def _instance(rank: int, peer: Peer, lost: str, *, has_left: bool = False) -> RosterInstance:
    state = AttemptState.FINISHED if has_left else AttemptState.RUNNING
    return RosterInstance(rank, peer.node_id, peer.alias, 0, state, lost, 1)
