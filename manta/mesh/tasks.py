"""How the instances of a task become the peers of a mesh.

The node of each begins its peer's process, beside its plane, since a task need have no network.
Each peer is the first in a mesh of its own. The instances tell each other by `world.all_gather`
where that admits, and by which secret; then each goes to the first of the others that answers, and
the meshes become one. An attempt that follows another hears the same, and joins those that are
there. From then on neither manager nor planes have a part in it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from manta.light.context import Context
from manta.light.exchange import Exchange
from manta.light.wire import MessageSocket
from manta.mesh.client import Client


class TaskPeer:
    """Of the attempt that runs here."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.name = context.brief.name
        self.secret = secrets.token_urlsafe(24)

    def begin(self, until: float) -> Client:
        """Once all are there, whose nodes this one knows then. Raises what the node says, Timeout,
        PeerLost."""
        Exchange().barrier(timeout=_left(until))
        return Client(MessageSocket.of(self._context.call("open_mesh")))

    def meet(self, client: Client, doors: Sequence[str], until: float) -> int:
        """Joins the others, given where this peer admits them; returns how many peers there are to
        be. Raises JoinFailed, Timeout, PeerLost."""
        brief = self._context.brief
        told = Exchange().all_gather([doors, self.secret], timeout=_left(until))
        others = [one for rank, one in enumerate(told) if rank != brief.index]
        if others:
            left = _left(until)
            client.request("meet", left, doors=others, timeout=left)
        return len(told) if brief.attempt == 0 else 1  # some may have ended since


def _left(until: float) -> float:
    return max(0.1, until - time.monotonic())
