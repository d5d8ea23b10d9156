"""Answers that come with a large value: each is given once that is here, within the time of its
request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from manta.node.peers.known import KnownPeers
from manta.node.plane.channels import Ask
from manta.node.plane.copies import NoPlace, Then, ValueGone
from manta.node.plane.parcels import Parcels
from manta.node.plane.value_room import KeptNoLonger, NoRoom
from manta.transports.errors import remedied
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel


class _Delivery(NamedTuple):
    remote: Remote
    then: Then


class Deliveries:
    """For the plane's thread. `reply` sends an answer with descriptors; `lost` asks again, since
    what would have been answered is not there any more."""

    def __init__(
        self,
        parcels: Parcels,
        known: KnownPeers,
        reply: Callable[[Ask, dict[str, Any], list[int]], None],
        lost: Callable[[Ask, Remote], None],
    ) -> None:
        self._parcels = parcels
        self._known = known
        self._reply = reply
        self._lost = lost
        self._waiting: dict[Ask, _Delivery] = {}

    def begin(self, ask: Ask, told: dict[str, Any], value: Parcel | Remote) -> None:
        """Answers with `told` once the value is here."""
        if isinstance(value, Parcel):
            self._give(ask, told, value)
            return
        then = partial(self._came, ask, told)
        self._waiting[ask] = _Delivery(value, then)
        self._parcels.want(ask.at.swarm_id, value, then)

    def _give(self, ask: Ask, told: dict[str, Any], parcel: Parcel) -> None:
        """One of this node's."""
        own = self._parcels.own(parcel.id)
        if own is None:
            ask.fail("PeerLost", str(KeptNoLonger("A value that was sent", "this node")))
            return
        try:
            self._reply(ask, told, [self._parcels.opened(own)])
        except NoRoom as error:
            ask.fail("ResourceExhaustionError", str(error))
        except OSError as error:
            ask.fail("RequestFailed", f"The value cannot be read: {remedied(error)}.")
        self._parcels.unused(own)

    def abandon(self, ask: Ask) -> None:
        """Nobody waits for the answer any more."""
        if (delivery := self._waiting.pop(ask, None)) is not None:
            self._parcels.forgo(*delivery)

    def _came(self, ask: Ask, told: dict[str, Any], fd: int, error: Exception | None) -> None:
        delivery = self._waiting.pop(ask, None)
        if delivery is None:
            return
        remote = delivery.remote
        if error is None:
            self._reply(ask, told, [fd])
        elif isinstance(error, ValueGone):
            self._lost(ask, remote)
        elif isinstance(error, NoRoom | NoPlace):
            ask.fail("ResourceExhaustionError", str(error))
        elif self._known.node(ask.at.swarm_id, remote.peer) is None:
            gone = self._name(ask, remote)
            ask.fail("PeerLost", f"{gone} is gone, and with it a value of its: {error}.")
        else:
            name = self._name(ask, remote)
            ask.fail("RequestFailed", f"A value of {name} did not arrive: {error}.")

    def _name(self, ask: Ask, remote: Remote) -> str:
        known, swarm_id = self._known, ask.at.swarm_id
        node = known.node(swarm_id, remote.peer) or known.departed(swarm_id, remote.peer)
        return remote.peer if node is None else node.alias or remote.peer

    # --- time ---------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the time of the first request is over."""
        return min((ask.until for ask in self._waiting), default=None)

    def tick(self, now: float) -> None:
        for ask in [ask for ask in self._waiting if ask.until <= now]:
            remote = self._waiting[ask].remote
            waited = getattr(ask.body, "timeout", 0.0)
            state = self._parcels.state(remote)
            self.abandon(ask)
            ask.fail(
                "Timeout",
                f"Waited {waited:g} s in vain: {self._name(ask, remote)} has sent a value, and "
                f"{state}.",
            )
