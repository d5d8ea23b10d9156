"""A relay beside what a transport's listeners do else: on the same ports, links and thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from manta.transports.errors import LinkDown, LinkOverflow
from manta.transports.relay import wire
from manta.transports.relay.hub import Hub, RelayLimits, Send
from manta.transports.zeromq.transport import ZmqTransport

if TYPE_CHECKING:
    from manta.transports.errors import DownReason
    from manta.transports.interface import Buffer, Link, LinkHandler
    from manta.transports.security.admission import Admission
    from manta.transports.security.keys import KeyPair
    from manta.transports.zeromq.io_thread import Timer
    from manta.transports.zeromq.listener import ZmqListener


class RelayingTransport(ZmqTransport):
    """`may(key, other)`: whether peers with these keys are joined; `serves(key)`: whether what a
    peer says is for the relay at all. Both are called on the I/O thread."""

    def __init__(
        self,
        keys: KeyPair,
        may: Callable[[str, str], bool],
        limits: RelayLimits | None = None,
        serves: Callable[[str], bool] = lambda key: True,
    ) -> None:
        super().__init__(keys)
        self.serves = serves
        self.hub = Hub(may, limits)
        self._timer: Timer | None = None

    def listen(
        self,
        address: str,
        handler: LinkHandler,
        admission: Admission,
        *,
        fd: int | None = None,
    ) -> ZmqListener:
        return super().listen(address, _Handler(self, handler), admission, fd=fd)

    # --- on the I/O thread -------------------------------------------------------------------

    def heard(self, link: Link, message: list[Buffer]) -> None:
        """Raises RemoteProtocolError."""
        said, now = wire.unpack(message), time.monotonic()
        self._perform(self.hub.received(link, link.peer_key, said, now))

    def left(self, link: Link) -> None:
        self._perform(self.hub.left(link, link.peer_key, time.monotonic()))

    def _perform(self, sends: Iterable[Send]) -> None:
        for link, said in sends:
            _send(link, said)  # type: ignore[arg-type]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.hub.due is not None:
            pause = max(0.0, self.hub.due - time.monotonic())
            self._timer = self.io.call_later(pause, self._pass_on)

    def _pass_on(self) -> None:
        self._timer = None
        self._perform(self.hub.tick(time.monotonic()))


class _Handler:
    """Takes out what is for the relay."""

    def __init__(self, relay: RelayingTransport, handler: LinkHandler) -> None:
        self._relay = relay
        self._handler = handler

    def link_up(self, link: Link) -> None:
        self._handler.link_up(link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self._relay.left(link)
        self._handler.link_down(link, reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        if wire.is_relay(message) and self._relay.serves(link.peer_key):
            self._relay.heard(link, message)
        else:
            self._handler.received(link, message)


def _send(link: Link, said: wire.Said) -> None:
    try:
        link.send(said.pack())
    except LinkDown:
        return  # `left` follows
    except LinkOverflow:
        link.close()
