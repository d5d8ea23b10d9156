"""An endpoint whose bulk goes over links: what a plane does with `LinkBulk`, and nothing else."""

from __future__ import annotations

from contextlib import suppress

from manta.transports.errors import DownReason, LocalTransportError
from manta.transports.interface import Buffer, Link
from manta.transports.sealed.curve import LinkBulk
from manta.transports.sealed.endpoint import BulkEndpoint
from manta.transports.sealed.options import PeerOptions
from manta.transports.sealed.peer import BulkPeer, Changed
from manta.transports.security.admission import Admission
from manta.transports.security.keys import KeyPair
from manta.transports.zeromq.transport import ZmqTransport


class CurveEndpoint:
    """As `BulkEndpoint`, without tickets."""

    def __init__(
        self,
        keys: KeyPair,
        admission: Admission,
        *,
        options: PeerOptions | None = None,
        changed: Changed | None = None,
    ) -> None:
        self._admission = admission
        self._bulk = BulkEndpoint(keys, admission, options=options, changed=changed)
        self._transport = ZmqTransport(keys)
        self._sessions = LinkBulk(self._bulk, admission, keys.public)
        self._dialled: dict[str, Link] = {}
        self.letters: list[bytes] = []
        """What came over its links besides."""

    def listen(self, address: str) -> str:
        return self._transport.listen(address, self, self._admission).address

    def peer(self, key: str) -> BulkPeer:
        return self._bulk.peer(key)

    def dial(self, key: str, address: str) -> BulkPeer:
        if (before := self._dialled.pop(key, None)) is not None:
            before.close()
        self._dialled[key] = self._transport.dial(address, key, self)
        return self._bulk.peer(key)

    def close(self) -> None:
        if self._transport.is_current():
            raise LocalTransportError("a callback cannot close its own endpoint")
        self._bulk.close()
        self._transport.close()

    def link_up(self, link: Link) -> None:
        with suppress(LocalTransportError):  # it was closed in this moment
            if link.address:
                self._sessions.begin(link)

    def link_down(self, link: Link, reason: DownReason) -> None:
        self._sessions.left(link)
        if link.address and self._dialled.get(link.peer_key) is link:
            with suppress(LocalTransportError):
                self._bulk.peer(link.peer_key).down(reason)

    def received(self, link: Link, message: list[Buffer]) -> None:
        if len(message) == 1:
            self.letters.append(bytes(message[0]))
        else:
            self._sessions.received(link, message)
