"""Who may speak to this node, and of which swarms: what the plane makes of what it is told. Pure.

It answers for each message that a peer sends, so each question takes the same time however many
peers there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.protocol.peers import Departed, Departure, Peer


class KnownPeers:
    def __init__(self) -> None:
        self._epochs: dict[str, str] = {}
        self._by_id: dict[str, dict[str, Peer]] = {}
        """By swarm and node id."""
        self._by_key: dict[str, dict[str, Peer]] = {}
        """By key and swarm."""
        self._departed: dict[str, dict[str, Departed]] = {}
        """By swarm and node id."""

    def epoch(self, swarm_id: str) -> str | None:
        """The swarm's timeline; None if this node has no part in it."""
        return self._epochs.get(swarm_id)

    def peer(self, swarm_id: str, key: str) -> Peer | None:
        """Who speaks of the swarm with this key; None if nobody may."""
        return self._by_key.get(key, {}).get(swarm_id)

    def node(self, swarm_id: str, node_id: str) -> Peer | None:
        return self._by_id.get(swarm_id, {}).get(node_id)

    def named(self, swarm_id: str, name: str) -> str | None:
        """The id of the node that has a part in the swarm and this id or alias."""
        nodes = self._by_id.get(swarm_id, {})
        if name in nodes:
            return name
        found = [peer.node_id for peer in nodes.values() if peer.alias == name]
        return found[0] if len(found) == 1 else None

    def nodes(self, swarm_id: str) -> Iterable[str]:
        """The ids of all nodes that have a part in the swarm, this one among them."""
        return self._by_id.get(swarm_id, {}).keys()

    def departed(self, swarm_id: str, node_id: str) -> Departed | None:
        """Why a node is there no longer, if that is known."""
        return self._departed.get(swarm_id, {}).get(node_id)

    def spoken(self, key: str) -> Iterable[str]:
        """The swarms of which the key may speak."""
        return self._by_key.get(key, {}).keys()

    def is_known(self, key: str) -> bool:
        """Whether the key may speak of any swarm."""
        return key in self._by_key

    def share(self, key: str, other: str) -> bool:
        """Whether both may speak of one swarm."""
        swarms = self._by_key.get(other, {})
        return any(swarm_id in swarms for swarm_id in self._by_key.get(key, {}))

    def beside(self, key: str) -> list[Peer]:
        """Who may speak of a swarm of which that key may, in the order of their ids."""
        swarms = self._by_key.get(key, {})
        found = {id_: peer for swarm in swarms for id_, peer in self._by_id[swarm].items()}
        return [found[id_] for id_ in sorted(found) if found[id_].key != key]

    @property
    def keys(self) -> tuple[str, ...]:
        """Those that may speak of any."""
        return tuple(self._by_key)

    @property
    def swarms(self) -> tuple[str, ...]:
        """Those in which this node has a part."""
        return tuple(self._epochs)

    def apply(self, message: DirectoryChanged | DirectoryOver | PeersAnew) -> list[str]:
        """Returns the keys that may speak of nothing any more: their connections are to be cut."""
        before = set(self._by_key)
        match message:
            case PeersAnew(directories):
                for swarm_id in list(self._epochs):
                    self._forget(swarm_id)
                for directory in directories:
                    self._change(directory)
            case DirectoryOver(swarm_id):
                self._forget(swarm_id)
            case DirectoryChanged():
                self._change(message)
            case _:
                assert_never(message)
        return sorted(before - self._by_key.keys())

    def _change(self, change: DirectoryChanged) -> None:
        swarm_id = change.swarm_id
        if change.began:
            self._forget(swarm_id)
        self._epochs[swarm_id] = change.epoch
        departed = self._departed.setdefault(swarm_id, {})
        for one in change.departed:
            # A key that was revoked is nobody's, also where that is yet to be told.
            others = self.spoken(one.key) if one.why == Departure.REVOKED else ()
            for at in {swarm_id, *others}:
                self._departed.setdefault(at, {})[one.node_id] = one
                self._remove(at, one.node_id)
        for peer in change.peers:
            departed.pop(peer.node_id, None)
            self._remove(swarm_id, peer.node_id)  # it may have had another key
            self._by_id.setdefault(swarm_id, {})[peer.node_id] = peer
            self._by_key.setdefault(peer.key, {})[swarm_id] = peer

    def _forget(self, swarm_id: str) -> None:
        self._epochs.pop(swarm_id, None)
        self._departed.pop(swarm_id, None)
        self._drop(swarm_id, self._by_id.pop(swarm_id, {}).values())

    def _remove(self, swarm_id: str, node_id: str) -> None:
        peer = self._by_id.get(swarm_id, {}).pop(node_id, None)
        self._drop(swarm_id, () if peer is None else (peer,))

    def _drop(self, swarm_id: str, peers: Iterable[Peer]) -> None:
        for peer in peers:
            swarms = self._by_key[peer.key]
            del swarms[swarm_id]
            if not swarms:
                del self._by_key[peer.key]
