"""Which nodes are told of which: the directories of a cluster's swarms, in versions. Pure.

Theory of operation. A node is a *member* of a swarm's directory from when it is given an attempt
until an iteration has passed in which it was given none. It is *there* unless it was lost or
removed, and whoever is there is told of all members that are there, itself included: nobody else is
told of any. Changes gather until `flush`, which makes a new version of each directory that
changed. A newcomer is told the whole, the others what is new; a node that misses that sees by the
versions that come with the answer to each heartbeat that it did, and fetches the whole.

That a member stays for one more iteration spares those who meet in every iteration all of this: in
a swarm that runs on the same nodes again and again nothing changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

import msgspec

from manta.protocol import pages
from manta.protocol.addresses import is_loopback
from manta.protocol.pages import PAGE_BYTES, encoded, fitting
from manta.protocol.peers import Departed, Departure, Peer, Peers, PeersChanged
from manta.transports.addresses import join_address, split_address

MOST_DEPARTED = 1000
"""Nodes of which a directory says why they are in it no longer."""


@dataclass(frozen=True)
class Known:
    """A node, as it registered last."""

    node_id: str
    alias: str
    key: str
    addresses: tuple[str, ...] | None
    """Where it says that others can connect to it; None if it is not to be told of others."""
    seen_at: str = ""
    """The host that the manager saw it at; "" where that is not known."""
    blob_port: int = 0
    """Where it gives blobs; 0 if it gives none."""

    def shown(self, *, near: bool) -> Peer:
        """A loopback address is shown only `near`: to who is on the manager's machine, if this node
        is there, too."""
        return self._near if near else self._far

    @cached_property
    def is_near(self) -> bool:
        """Whether it is on the manager's machine."""
        return is_loopback(self.seen_at)

    @cached_property
    def _near(self) -> Peer:
        own = self.addresses or ()
        ports = dict.fromkeys(split_address(address)[1] for address in own)
        seen = (join_address(self.seen_at, port) for port in ports) if self.seen_at else ()
        return Peer(self.node_id, self.alias, self.key, tuple(dict.fromkeys((*own, *seen))))

    @cached_property
    def _far(self) -> Peer:
        reached = (one for one in self._near.addresses if not is_loopback(split_address(one)[0]))
        return Peer(self.node_id, self.alias, self.key, tuple(reached))


@dataclass
class _Directory:
    epoch: str = ""
    version: int = 0
    iteration: int = 0
    """The latest in which a node was given an attempt."""
    members: dict[str, int] = field(default_factory=dict)
    """By node: the latest iteration in which it was given an attempt."""
    departed: dict[str, Departed] = field(default_factory=dict)
    """Why nodes are not in it that were, the latest last."""
    told: set[str] = field(default_factory=set)
    """Nodes that were told of it."""
    changed: set[str] = field(default_factory=set)
    """Nodes of which the others are to be told, or told anew."""
    renamed: bool = False
    """It has another epoch: all are told the whole."""


class Directories:
    """Of all swarms of a cluster that run. Its nodes are made known with `here`."""

    def __init__(self, page_bytes: int = PAGE_BYTES) -> None:
        self._page_bytes = page_bytes
        self._nodes: dict[str, Known] = {}
        self._away: set[str] = set()
        self._swarms: dict[str, _Directory] = {}
        self._of: defaultdict[str, dict[str, None]] = defaultdict(dict)
        """By node: the swarms of which it is a member."""
        self._dirty: dict[str, None] = {}
        """Swarms whose directories changed."""

    # Nodes.

    def here(self, node: Known) -> None:
        """The node has registered, now or before a restart."""
        before, was_away = self._nodes.get(node.node_id), node.node_id in self._away
        self._nodes[node.node_id] = node
        self._away.discard(node.node_id)
        if before != node or was_away:
            self._changed(node.node_id)

    def back(self, node_id: str) -> None:
        """The node is heard again over the link that it had."""
        if node_id in self._away:
            self._away.discard(node_id)
            self._changed(node_id)

    def lost(self, node_id: str, sentence: str) -> None:
        if node_id in self._nodes and node_id not in self._away:
            self._away.add(node_id)
            self._departs(node_id, Departure.LOST, sentence)

    def removed(self, node_id: str, sentence: str) -> None:
        """Its key is nobody's any more."""
        if node_id in self._nodes:
            self._departs(node_id, Departure.REVOKED, sentence)
            for swarm_id in self._of.pop(node_id, ()):
                del self._swarms[swarm_id].members[node_id]
            del self._nodes[node_id]
            self._away.discard(node_id)

    def _changed(self, node_id: str) -> None:
        for swarm_id in self._of.get(node_id, ()):
            swarm = self._change(swarm_id, node_id)
            swarm.told.discard(node_id)  # of what changed meanwhile it was not told

    def _departs(self, node_id: str, why: Departure, sentence: str) -> None:
        for swarm_id in self._of.get(node_id, ()):
            self._leaves(swarm_id, node_id, why, sentence)

    def _change(self, swarm_id: str, node_id: str) -> _Directory:
        """Others are told of the node anew."""
        self._dirty[swarm_id] = None
        swarm = self._swarms[swarm_id]
        swarm.changed.add(node_id)
        swarm.departed.pop(node_id, None)
        return swarm

    def _leaves(self, swarm_id: str, node_id: str, why: Departure, sentence: str = "") -> None:
        node, swarm = self._nodes[node_id], self._change(swarm_id, node_id)
        swarm.departed[node_id] = Departed(node_id, node.alias, node.key, why, sentence)
        if len(swarm.departed) > MOST_DEPARTED:
            del swarm.departed[next(iter(swarm.departed))]

    # Swarms.

    def restored(self, swarm_id: str, epoch: str, members: Mapping[str, int]) -> None:
        """What is known of a swarm by its log; `members` by the latest iteration of each."""
        before = self._swarms.get(swarm_id)
        self.ended(swarm_id)
        self.begins(swarm_id, epoch)
        if before is not None:  # no version stands for two things
            self._swarms[swarm_id].version = before.version
        for node_id, iteration in members.items():
            self.assigned(swarm_id, node_id, iteration)

    def begins(self, swarm_id: str, epoch: str) -> None:
        """The swarm runs, in this epoch of the manager's timeline."""
        swarm = self._swarms.setdefault(swarm_id, _Directory(epoch))
        if swarm.epoch != epoch:
            swarm.epoch, swarm.renamed = epoch, True
            self._dirty[swarm_id] = None

    def ended(self, swarm_id: str) -> None:
        """Its nodes know by the versions that come with their next heartbeat's answer, and before
        that by what they are to run."""
        swarm = self._swarms.pop(swarm_id, None)
        for node_id in swarm.members if swarm is not None else ():
            self._of[node_id].pop(swarm_id, None)

    def assigned(self, swarm_id: str, node_id: str, iteration: int) -> None:
        """The node is given an attempt in this iteration."""
        swarm = self._swarms.get(swarm_id)
        if swarm is None or node_id not in self._nodes:
            return
        before = swarm.members.get(node_id)
        if before is None:
            self._of[node_id][swarm_id] = None
            self._change(swarm_id, node_id)
        if before is None or before < iteration:
            swarm.members[node_id] = iteration
        if iteration > swarm.iteration:
            swarm.iteration = iteration
            for id_ in [one for one, last in swarm.members.items() if last < iteration - 1]:
                del swarm.members[id_]
                self._of[id_].pop(swarm_id, None)
                if id_ not in self._away:  # of those that are it was told
                    self._leaves(swarm_id, id_, Departure.OVER)

    # What nodes are told.

    def flush(self) -> list[tuple[str, PeersChanged]]:
        """What changed since the last flush, as new versions, each with the node that is told."""
        messages: list[tuple[str, PeersChanged]] = []
        dirty, self._dirty = self._dirty, {}
        for swarm_id in dirty:
            if (swarm := self._swarms.get(swarm_id)) is not None:
                swarm.version += 1
                messages += self._news(swarm_id, swarm)
                swarm.changed, swarm.renamed = set(), False
        return messages

    def _news(self, swarm_id: str, swarm: _Directory) -> Iterable[tuple[str, PeersChanged]]:
        there = self._there(swarm)
        departed = tuple(one for id_, one in swarm.departed.items() if id_ in swarm.changed)
        header = swarm_id, swarm.epoch, swarm.version

        @cache
        def news(is_new: bool, near: bool) -> PeersChanged:
            told = there if is_new else [one for one in there if one.node_id in swarm.changed]
            shown = tuple(one.shown(near=near and one.is_near) for one in told)
            if is_new:
                change = PeersChanged(*header, 0, shown, tuple(swarm.departed.values()))
            else:
                change = PeersChanged(*header, swarm.version - 1, shown, departed)
            items = (*change.peers, *change.departed)
            fits = not fitting(items, encoded, self._page_bytes)[1]
            return change if fits else PeersChanged(*header, -1)  # it is fetched

        for node in there:
            is_new = swarm.renamed or node.node_id not in swarm.told
            yield node.node_id, news(is_new, node.is_near)
        for one in departed:
            if one.why == Departure.OVER and one.node_id in swarm.told:
                yield one.node_id, PeersChanged(*header, swarm.version - 1, (), (one,))
        swarm.told = {node.node_id for node in there}

    def versions(self, node_id: str) -> dict[str, int]:
        """The directories that the node should have, by swarm."""
        if node_id in self._away or not self._hears(node_id):
            return {}
        return {
            swarm_id: self._swarms[swarm_id].version
            for swarm_id in self._of.get(node_id, ())
            if self._swarms[swarm_id].version
        }

    def page(self, node_id: str, swarm_id: str, version: int, after: str) -> Peers | None:
        """A page of the directory; None if there is none for this node."""
        if swarm_id not in self.versions(node_id):
            return None
        swarm, node = self._swarms[swarm_id], self._nodes[node_id]
        if version != swarm.version:
            after = ""
        near = node.is_near
        shown = (one.shown(near=near and one.is_near) for one in self._there(swarm))
        page, more = pages.after(shown, _id_of, after, encoded, self._page_bytes)
        swarm.told.add(node_id)
        departed = () if after else tuple(swarm.departed.values())
        return Peers(swarm_id, swarm.epoch, swarm.version, page, departed, more)

    def share(self, node_id: str, other: str) -> bool:
        """Whether two nodes are there and members of one swarm; from any thread."""
        if node_id in self._away or other in self._away:
            return False
        its, others = self._of.get(node_id, {}), self._of.get(other, {})
        return any(swarm_id in others for swarm_id in list(its))

    def gives(self, swarm_id: str, to: str, node_id: str) -> bool:
        """Whether a node may, and can, fetch blobs of the swarm from this one."""
        swarm, giver = self._swarms.get(swarm_id), self._nodes.get(node_id)
        if swarm is None or giver is None or node_id == to or not giver.blob_port:
            return False
        if not self._is_there(swarm, node_id) or not self._is_there(swarm, to):
            return False
        return bool(giver.shown(near=self._nodes[to].is_near and giver.is_near).addresses)

    def giver(self, to: str, node_id: str) -> Peer:
        """A node that gives blobs to another one, with the addresses at which it does."""
        giver = self._nodes[node_id]
        shown = giver.shown(near=self._nodes[to].is_near and giver.is_near)
        hosts = dict.fromkeys(split_address(address)[0] for address in shown.addresses)
        addresses = tuple(join_address(host, giver.blob_port) for host in hosts)
        return msgspec.structs.replace(shown, addresses=addresses)

    def has_part(self, swarm_id: str, node_id: str) -> bool:
        """Whether the node is in the swarm's directory."""
        swarm = self._swarms.get(swarm_id)
        return swarm is not None and node_id in swarm.members

    def _is_there(self, swarm: _Directory, node_id: str) -> bool:
        return node_id in swarm.members and node_id not in self._away and self._hears(node_id)

    def _there(self, swarm: _Directory) -> list[Known]:
        """Without those that are not told of others: they can speak to nobody."""
        members = (self._nodes[id_] for id_ in swarm.members if id_ not in self._away)
        return [node for node in members if node.addresses is not None]

    def _hears(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and node.addresses is not None


def _id_of(peer: Peer) -> str:
    return peer.node_id
