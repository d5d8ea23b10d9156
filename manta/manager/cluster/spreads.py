"""Whom each node fetches a blob from, so that the manager sends each at most twice. Pure.

Theory of operation. What a node wrote is had from there. Of any other blob the first COPIES nodes
that want it have it from the manager, every other one from a node that has it or is receiving it
and passes on what has come: the chunks run down two trees. Among those the one is named that costs
least: each hop between it and the manager costs 1, each node that it serves already SERVED. So a
few nodes form a chain, in which each sends the blob once, and many a tree, in which it has few hops
to go. Nobody is named to whom it would come through the asking node itself.

A node whose source fails asks again and says so. Where nobody is left to be named it is the
manager's turn again, with at most COPIES uploads of the blob at a time.

All of this is forgotten with the manager, and the least recently wanted blobs of a swarm beyond
MOST: then the manager sends a blob again.

| a node's part | begins                | ends                                              |
|---------------|-----------------------|---------------------------------------------------|
| receiving     | it asks               | it tells that it has the blob, or does not get it |
| held          | it tells that it has  | it asks again, or is gone                         |
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

COPIES = 2
"""Of a blob, which the manager sends while no node fails; and at a time, whatever fails."""
SERVED = 3
"""What a node that is served costs, in hops."""
MOST = 4096
"""Blobs of one swarm of which it is known who has them."""
SLOW = 60.0
"""Seconds for which an upload of the manager counts as under way without news."""
WAIT = 0.5
"""Seconds until a node asks again for which there is no source now."""

MANAGER = ""


@dataclass
class _Part:
    source: str
    """The node's id; MANAGER, also of a blob that is held."""
    hops: int
    since: float
    held: bool = False


@dataclass
class _Blob:
    parts: dict[str, _Part] = field(default_factory=dict)
    """By node."""
    serves: Counter[str] = field(default_factory=Counter)
    """By node: how many receive it from there."""
    copies: int = 0
    """That the manager sent, or is sending."""


class Spreads:
    def __init__(self) -> None:
        self._blobs: dict[str, OrderedDict[str, _Blob]] = {}
        """By swarm and digest; the last wanted last."""

    def want(
        self,
        swarm_id: str,
        digest: str,
        node_id: str,
        now: float,
        *,
        usable: Callable[[str], bool],
        failed: Collection[str] = (),
        whole: bool = False,
    ) -> str | None:
        """Returns the id of the node to fetch it from, MANAGER, or None: it has to wait.

        `usable`: whether the asking node may and can speak to this one. `failed` did not give it;
        with `whole`, only who holds all of it is named.
        """
        blob = self._blob(swarm_id, digest)
        again = self._drop(blob, node_id) or blob.serves[node_id] > 0
        found = [
            (part.hops + SERVED * blob.serves[id_], id_)
            for id_, part in blob.parts.items()
            if (part.held or not whole) and id_ not in failed and usable(id_)
            if not again or not self._comes_through(blob, id_, node_id)
        ]
        is_held = any(blob.parts[id_].held for _, id_ in found)
        if found and (is_held or blob.copies >= COPIES):
            source = min(found)[1]
            blob.serves[source] += 1
            blob.parts[node_id] = _Part(source, blob.parts[source].hops + 1, now)
            return source
        if blob.copies >= COPIES and self._uploads(blob, now) >= COPIES:
            return None
        blob.copies += 1
        blob.parts[node_id] = _Part(MANAGER, 1, now)
        return MANAGER

    def told(self, swarm_id: str, digest: str, node_id: str, now: float, *, held: bool) -> None:
        """The node has all of it, or will not have it."""
        blob = self._blob(swarm_id, digest)
        part = blob.parts.get(node_id)
        self._drop(blob, node_id, keep_copy=held)
        if held:
            hops = part.hops if part is not None else 1
            blob.parts[node_id] = _Part(MANAGER, hops, now, held=True)

    def made(self, swarm_id: str, digest: str, node_id: str, now: float) -> None:
        """It stays on the node, which made it."""
        part = self._blob(swarm_id, digest).parts.get(node_id)
        if part is None or not part.held:
            self.told(swarm_id, digest, node_id, now, held=True)

    def gone(self, node_id: str) -> None:
        """The node is lost or removed."""
        for blobs in self._blobs.values():
            for blob in blobs.values():
                self._drop(blob, node_id)

    def ended(self, swarm_id: str) -> None:
        self._blobs.pop(swarm_id, None)

    def _blob(self, swarm_id: str, digest: str) -> _Blob:
        blobs = self._blobs.setdefault(swarm_id, OrderedDict())
        blob = blobs.pop(digest, None) or _Blob()
        blobs[digest] = blob
        if len(blobs) > MOST:
            blobs.popitem(last=False)
        return blob

    @staticmethod
    def _drop(blob: _Blob, node_id: str, *, keep_copy: bool = False) -> bool:
        """Whether it had a part."""
        part = blob.parts.pop(node_id, None)
        if part is None:
            return False
        if part.source != MANAGER:
            blob.serves[part.source] -= 1
        elif not part.held and not keep_copy:
            blob.copies -= 1
        return True

    @staticmethod
    def _comes_through(blob: _Blob, node_id: str, through: str) -> bool:
        """Whether what a node receives comes from another one, over however many hops."""
        seen = set()
        while node_id not in seen and (part := blob.parts.get(node_id)) is not None:
            seen.add(node_id)
            node_id = part.source
            if node_id == through:
                return True
        return node_id in seen  # parts that were dropped and asked again may have closed a ring

    @staticmethod
    def _uploads(blob: _Blob, now: float) -> int:
        parts = blob.parts.values()
        return sum(p.source == MANAGER and not p.held and now < p.since + SLOW for p in parts)
