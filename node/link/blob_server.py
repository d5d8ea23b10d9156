"""Who may fetch which blobs from this node: the nodes of a swarm, what is that swarm's.

A key is admitted as long as some directory names it, and asks for a blob of a swarm whose directory
names it. A blob is offered from when this node begins to fetch it for a swarm: until it has come,
what comes for that swarm is all that is given of it. That the same bytes are here of another swarm
says nothing: who names a digest need not have them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from manta.node.peers.book import PeersAnew
from manta.node.peers.directory import DirectoryChanged, DirectoryOver
from manta.node.peers.known import KnownPeers
from manta.transports.bulk.options import Operation, Verdict
from manta.transports.errors import BlobMissing
from manta.transports.security.admission import Admission

if TYPE_CHECKING:
    from manta.node.blobs.arriving import Arriving

MOST = 4096
"""Blobs that are offered; of more, those that were fetched first are not any longer."""


class BlobOffers:
    """Thread-safe."""

    def __init__(self) -> None:
        self.admission = Admission()
        self._peers = KnownPeers()
        self._offers: OrderedDict[str, dict[str, Arriving | None]] = OrderedDict()
        """By digest: the swarms for which it is given, and what comes for each; None: what is here
        is the swarm's."""
        self._lock = threading.Lock()

    def told(self, message: DirectoryChanged | DirectoryOver | PeersAnew) -> None:
        """Who is named no longer has lost its connections when this returns."""
        with self._lock:
            self._peers.apply(message)
            if isinstance(message, DirectoryOver):
                for swarms in self._offers.values():
                    swarms.pop(message.swarm_id, None)
            keys = self._peers.keys
        self.admission.replace_known(keys)

    def offer(self, digest: str, swarm_id: str, arriving: Arriving | None = None) -> None:
        with self._lock:
            swarms = self._offers.pop(digest, None) or {}
            swarms[swarm_id] = arriving
            self._offers[digest] = swarms
            if len(self._offers) > MOST:
                self._offers.popitem(last=False)

    def withdraw(self, digest: str, swarm_id: str, arriving: Arriving) -> None:
        """What came for the swarm comes no longer."""
        with self._lock:
            swarms = self._offers.get(digest, {})
            if swarms.get(swarm_id) is arriving:
                del swarms[swarm_id]

    def is_of(self, digest: str, swarm_id: str) -> bool:
        """Whether the blob is known to be the swarm's."""
        with self._lock:
            swarms = self._offers.get(digest, {})
            return swarm_id in swarms and swarms[swarm_id] is None

    def given(self, key: str, digest: str) -> Arriving | None:
        """What the node with this key is given: what comes, or None for what is here. Raises
        BlobMissing."""
        with self._lock:
            found = self._given(key, digest)
        if not found:
            raise BlobMissing(f"the blob {digest[:12]} is not here")
        return None if None in found else found[0]

    def _given(self, key: str, digest: str) -> list[Arriving | None]:
        swarms = self._offers.get(digest, {})
        return [
            arriving
            for swarm_id, arriving in swarms.items()
            if self._peers.peer(swarm_id, key) is not None
        ]

    def verdict(self, key: str, operation: Operation, digest: str, size: int) -> Verdict:
        """Whether the node with this key is given the blob."""
        if operation != "fetch":
            return Verdict.REFUSED
        with self._lock:
            if self._given(key, digest):
                return Verdict.GRANTED
            swarms = self._offers.get(digest)
        return Verdict.LATER if swarms else Verdict.REFUSED  # it may be about to be named
