"""Who may fetch which blobs from this node: the nodes of a swarm, what was fetched for it.

A key is admitted as long as some directory names it, and asks for a blob of a swarm whose directory
names it. A blob is offered from when this node begins to fetch it for a swarm.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.transports.bulk.options import Operation, Verdict
from manta.transports.security.admission import Admission

MOST = 4096
"""Blobs that are offered; of more, those that were fetched first are not any longer."""


class BlobOffers:
    """Thread-safe."""

    def __init__(self) -> None:
        self.admission = Admission()
        self._peers = KnownPeers()
        self._offers: OrderedDict[str, set[str]] = OrderedDict()
        """By digest: the swarms for which it is given."""
        self._lock = threading.Lock()

    def told(self, message: DirectoryChanged | DirectoryOver | PeersAnew) -> None:
        """Who is named no longer has lost its connections when this returns."""
        with self._lock:
            self._peers.apply(message)
            if isinstance(message, DirectoryOver):
                for swarms in self._offers.values():
                    swarms.discard(message.swarm_id)
            keys = self._peers.keys
        self.admission.replace_known(keys)

    def offer(self, digest: str, swarm_id: str) -> None:
        with self._lock:
            swarms = self._offers.pop(digest, None) or set()
            self._offers[digest] = swarms | {swarm_id}
            if len(self._offers) > MOST:
                self._offers.popitem(last=False)

    def verdict(self, key: str, operation: Operation, digest: str, size: int) -> Verdict:
        """Whether the node with this key is given the blob."""
        if operation != "fetch":
            return Verdict.REFUSED
        with self._lock:
            swarms = self._offers.get(digest, ())
            if any(self._peers.peer(swarm_id, key) is not None for swarm_id in swarms):
                return Verdict.GRANTED
        return Verdict.LATER if swarms else Verdict.REFUSED  # it may be about to be named
