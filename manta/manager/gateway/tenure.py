"""Which daemon speaks for a node, when several have its key. Pure.

A node's key may be in several places: a copied state folder, a machine that was moved. One
daemon *holds* the node; only what it sends counts.

    who registers                      while the holder is       then
    the holder                         anything                  it goes on
    another of its place               anything                  it takes over
    one of another place               connected, expected back  it is refused, both are told
    one of another place               gone, or there is none    it takes over
    one that was taken over from       anything                  it has to end

In a place only one daemon can run at a time, so that its successor there need not wait.

A holder is gone when it has said goodbye, or is lost by its lease: what it ran was given up then.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from manta.protocol.node import Daemon

REMEDY = (
    "one key is one node: stop one of the two, or give this one a key of its own (delete node.key "
    "and identity.json in its state folder, and enrol it with a new token)"
)


@dataclass
class Tenure:
    """Of one node."""

    holder: Daemon | None = None
    left: bool = False
    """It has said goodbye."""
    _contender: str = ""
    _former: deque[str] = field(default_factory=lambda: deque(maxlen=32))
    """Ids of daemons that were taken over from."""

    def is_free(self, daemon: Daemon, *, lost: bool) -> bool:
        """Whether the daemon may hold the node now. `lost`: the holder's lease is over."""
        holder = self.holder
        return holder is None or holder.place == daemon.place or self.left or lost

    def is_over(self, daemon: Daemon) -> bool:
        """Whether another daemon took over from it."""
        return daemon.id in self._former

    def contend(self, daemon: Daemon) -> bool:
        """It is refused; returns whether it is the first time since others were."""
        known, self._contender = self._contender, daemon.id
        return known != daemon.id

    def begin(self, daemon: Daemon) -> Daemon | None:
        """The daemon registers; returns the one that it takes over from."""
        before, self.holder, self.left = self.holder, daemon, False
        if before is None or before.id == daemon.id:
            return None
        self._former.append(before.id)
        return before


def held(holder: Daemon) -> str:
    """The refusal of a daemon while another holds its node."""
    return f"Another daemon holds this node, with the same key: {holder}; {REMEDY}."


def over(holder: Daemon) -> str:
    """The refusal of a daemon that was taken over from."""
    return f"Another daemon has taken this node over, with the same key: {holder}; {REMEDY}."


def contested(contender: Daemon) -> str:
    """What the holder and users are told."""
    return (
        f"Another daemon with this node's key was refused: {contender}. Stop it, or give it a key "
        "of its own (delete node.key and identity.json in its state folder, and enrol it with a "
        "new token)."
    )
