"""The listening side of bulk transfers. Pure but for the depot: messages and time in, messages out.

What belongs to a peer is found by its authenticated key: so a transfer continues over the
peer's next connection, and ends when the peer is no longer admitted.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, assert_never

from manta.transports.bulk.flow import Allowance, Budget
from manta.transports.bulk.options import Verdict
from manta.transports.bulk.transfers import Inbound, Outbound
from manta.transports.bulk.wire import (
    Accept,
    BulkMessage,
    Cancel,
    Chunk,
    Credit,
    Done,
    Failed,
    OpenFetch,
    OpenPush,
    failed,
    pack,
)
from manta.transports.errors import (
    BlobCorrupt,
    BlobMissing,
    BlobRefused,
    BulkError,
    RemoteProtocolError,
)
from manta.transports.security.admission import Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import ServedDepot, Source
    from manta.transports.bulk.options import BulkOptions, Operation
    from manta.transports.bulk.transfers import Statistics
    from manta.transports.interface import Buffer
    from manta.transports.security.admission import Admission

    Authorize = Callable[[str, Operation, str, int], Verdict]
    Pushed = Callable[[str, str], object]
    SourceFor = Callable[[str, str], Source]
    SendTo = Callable[[bytes, list[Buffer]], bool]

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Served:
    """A transfer that a peer opened."""

    flow: Inbound | Outbound
    digest: str
    route: bytes  # the connection that the peer was last heard on
    heard: float
    granted: bool  # whether the peer may know that the blob is here


class _Peer:
    """The transfers of one peer."""

    def __init__(self, key: str, options: BulkOptions) -> None:
        self.key = key
        self.transfers: dict[bytes, _Served] = {}
        self.budget: Budget[bytes] = Budget(options.peer_budget)
        self.small: Budget[bytes] = Budget(4 * options.small_window)
        """Of transfers that wait for a share in what all peers share."""
        self.allowance = Allowance(options.peer_budget)


class BulkServer:
    """Serves a depot to the peers that an `Admission` knows."""

    def __init__(
        self,
        depot: ServedDepot,
        admission: Admission,
        authorize: Authorize,
        pushed: Pushed,
        send: SendTo,
        options: BulkOptions,
        total: Statistics,
        source: SourceFor | None = None,
    ) -> None:
        self._depot = depot
        self._source: SourceFor = source or (lambda _, digest: depot.source(digest))
        self._admission = admission
        self._authorize = authorize
        self._pushed = pushed
        self._send = send
        self._options = options
        self._total = total
        self._peers: dict[str, _Peer] = {}
        self._windows: Budget[tuple[str, bytes]] = Budget(options.total // 2)
        """Of all peers. Who comes when it is used up need not wait, but has small ones."""

    @property
    def busy(self) -> bool:
        """Is any transfer open?"""
        return bool(self._peers)

    def received(
        self, route: bytes, key: str, message: BulkMessage, payload: Buffer | None, now: float
    ) -> bool:
        """Handle a message; False from a peer that is not admitted any more.

        Raises RemoteProtocolError, for which the peer is to be dropped.
        """
        if self._admission.standing(key) is not Standing.KNOWN:
            self.drop(key)
            return False
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = _Peer(key, self._options)
        try:
            served = peer.transfers.get(message.id)
            if served is not None:
                served.route = route
                served.heard = now
            match message:
                case OpenPush() | OpenFetch():
                    self._open(peer, served, route, message, now)
                case Chunk():
                    if payload is None:
                        raise RemoteProtocolError("a chunk without its bytes")
                    self._chunk(peer, served, message, payload)
                case Credit():
                    self._credit(peer, served, message)
                case Cancel():
                    if served is not None:
                        self._close(peer, message.id)
                case Accept() | Done() | Failed():
                    raise RemoteProtocolError(f"{type(message).__name__} from a client")
                case _:
                    assert_never(message)
        finally:
            self._forget_if_idle(peer)
        return True

    def tick(self, now: float) -> None:
        """Give up transfers whose peers have been silent for long or were denied."""
        for peer in list(self._peers.values()):
            if self._admission.standing(peer.key) is not Standing.KNOWN:
                self.drop(peer.key)
                continue
            for transfer, served in list(peer.transfers.items()):
                missing = self._is_missing(served, now)
                idle = now - served.heard >= self._options.idle
                # Other transfers of the peer must not wait for a lost one.
                if idle or (missing and (peer.budget.waiting or peer.small.waiting)):
                    self._close(peer, transfer)
                elif missing and isinstance(served.flow, Outbound):
                    served.flow.sender.pause()
            self._pump(peer)
            self._forget_if_idle(peer)

    def grown(self, digest: str) -> None:
        """More of the blob is there than before."""
        for peer in self._peers.values():
            mine = [one for one in peer.transfers.values() if one.digest == digest]
            for served in mine:
                if isinstance(served.flow, Outbound):
                    served.flow.grown()
            if mine:
                self._pump(peer)

    def failed(self, digest: str, error: BulkError) -> None:
        """The blob does not arrive, of which a part was sent."""
        for peer in list(self._peers.values()):
            for served in list(peer.transfers.values()):
                if served.digest == digest and isinstance(served.flow, Outbound):
                    self._finish(peer, served, failed(served.flow.id, error))
            self._forget_if_idle(peer)

    def drop(self, key: str) -> None:
        """Discard the peer's transfers."""
        peer = self._peers.pop(key, None)
        if peer is not None:
            for transfer, served in peer.transfers.items():
                served.flow.close()
                self._give_back(key, transfer)

    def close(self) -> None:
        for key in list(self._peers):
            self.drop(key)

    def _open(
        self,
        peer: _Peer,
        served: _Served | None,
        route: bytes,
        message: OpenPush | OpenFetch,
        now: float,
    ) -> None:
        if served is not None:
            inbound = isinstance(served.flow, Inbound)
            same = (message.digest, message.size) == (served.digest, served.flow.size)
            if not same or inbound != isinstance(message, OpenPush):
                raise RemoteProtocolError("two transfers under one id")
        else:
            if not self._has_room(peer, now):
                return  # the peer will repeat it
            operation: Operation = "push" if isinstance(message, OpenPush) else "fetch"
            try:
                verdict = self._verdict(peer, operation, message.digest, message.size)
                if verdict is Verdict.LATER:
                    return
                served = self._serve(peer, route, message, now, verdict)
            except BulkError as error:
                self._tell(route, failed(message.id, error))
                return
            if served is None:
                self._tell(route, Done(message.id))
                return
        flow = served.flow
        if isinstance(flow, Inbound):
            if flow.receiver.complete:  # an empty blob
                self._complete(peer, served, flow)
                return
            self._tell(route, Accept(flow.id, *flow.receiver.position()))
        elif isinstance(message, OpenFetch):
            flow.sender.start(message.received, message.limit)
            self._tell(route, Accept(flow.id, message.received, message.limit))
            self._pump(peer)
            if flow.sender.done:
                self._close(peer, flow.id)

    def _has_room(self, peer: _Peer, now: float) -> bool:
        """Whether the peer may open another transfer; those that it abandoned make room."""
        if len(peer.transfers) >= self._options.max_served:
            for transfer, served in list(peer.transfers.items()):
                if self._is_missing(served, now):
                    self._close(peer, transfer)
        return len(peer.transfers) < self._options.max_served

    def _is_missing(self, served: _Served, now: float) -> bool:
        """Whether the peer, or its connection, seems gone: one that waits repeats its request."""
        return now - served.heard >= 2 * self._options.repeat_after

    def _verdict(self, peer: _Peer, operation: Operation, digest: str, size: int) -> Verdict:
        """Raises BulkError where the peer may not move the blob."""
        try:
            verdict = self._authorize(peer.key, operation, digest, size)
        except BulkError:
            raise
        except Exception as error:
            raise _fault(operation, digest) from error
        if verdict is not Verdict.REFUSED:
            return verdict
        if operation == "fetch":
            raise _not_here(digest)
        raise BlobRefused(f"this peer may not push the blob {digest[:12]}")

    def _serve(
        self,
        peer: _Peer,
        route: bytes,
        message: OpenPush | OpenFetch,
        now: float,
        verdict: Verdict,
    ) -> _Served | None:
        """Begin a transfer; None when the blob is already here. Raises BulkError."""
        digest, size = message.digest, message.size
        options = self._options
        granted = verdict is Verdict.GRANTED
        try:
            flow: Inbound | Outbound
            if isinstance(message, OpenPush):
                depot = self._depot
                sink = depot.sink(digest, size) if granted else depot.draft(digest, size)
                if sink is None:
                    return None
                flow = Inbound(message.id, digest, size, sink, options.window_of(size), self._total)
                if peer.budget.request(flow.id, options.window_of(size)):
                    self._grant(peer, flow)
            else:
                source = self._source(peer.key, digest)
                if source.size != size:
                    source.close()
                    raise BlobCorrupt(
                        f"the blob {digest[:12]} has {source.size} bytes here, not {size}"
                    )
                flow = Outbound(message.id, source, options.chunk, peer.allowance, self._total)
        except BlobMissing:
            raise _not_here(digest) from None
        except BulkError:
            raise
        except Exception as error:
            raise _fault("push" if isinstance(message, OpenPush) else "fetch", digest) from error
        served = peer.transfers[message.id] = _Served(flow, digest, route, now, granted)
        return served

    def _chunk(self, peer: _Peer, served: _Served | None, message: Chunk, payload: Buffer) -> None:
        if served is None:
            return  # its transfer has failed
        flow = served.flow
        if not isinstance(flow, Inbound):
            raise RemoteProtocolError("a chunk for a blob that is being fetched")
        try:
            credit = flow.chunk(message, payload)
        except BulkError as error:
            self._finish(peer, served, failed(flow.id, error))
            return
        if flow.receiver.complete:
            self._complete(peer, served, flow)
        elif credit is not None:
            self._tell(served.route, credit)

    def _complete(self, peer: _Peer, served: _Served, flow: Inbound) -> None:
        try:
            flow.commit()
        except BulkError as error:
            self._finish(peer, served, failed(flow.id, error))
            return
        self._pushed(peer.key, served.digest)
        self._finish(peer, served, Done(flow.id))
        # Others that push the same blob, and may know that it is here, are done as well.
        for other in list(self._peers.values()):
            for twin in list(other.transfers.values()):
                same = twin.digest == served.digest and isinstance(twin.flow, Inbound)
                if same and (twin.granted or other is peer):
                    self._finish(other, twin, Done(twin.flow.id))

    def _finish(self, peer: _Peer, served: _Served, last: Done | Failed) -> None:
        self._tell(served.route, last)
        self._close(peer, served.flow.id)

    def _credit(self, peer: _Peer, served: _Served | None, message: Credit) -> None:
        if served is None:
            return
        flow = served.flow
        if not isinstance(flow, Outbound):
            raise RemoteProtocolError("credit for a blob that is being pushed")
        flow.sender.credit(message.received, message.limit)
        if flow.sender.done:
            self._close(peer, flow.id)
        self._pump(peer)

    def _pump(self, peer: _Peer) -> None:
        for served in list(peer.transfers.values()):
            if isinstance(served.flow, Outbound):
                try:
                    served.flow.pump(partial(self._send, served.route))
                except BulkError as error:
                    self._finish(peer, served, failed(served.flow.id, error))
                except OSError as error:
                    fault = _fault("fetch", served.digest)
                    fault.__cause__ = error
                    self._finish(peer, served, failed(served.flow.id, fault))

    def _close(self, peer: _Peer, transfer: bytes) -> None:
        served = peer.transfers.pop(transfer)
        served.flow.close()
        self._give_back(peer.key, transfer)
        self._give_back_small(peer, transfer)
        for granted in peer.budget.release(transfer):
            next_one = peer.transfers[granted]
            assert isinstance(next_one.flow, Inbound)
            self._grant(peer, next_one.flow)
            self._credit_to(next_one)

    def _grant(self, peer: _Peer, flow: Inbound) -> None:
        """The peer's own budget has room for the transfer."""
        window, small = self._options.window_of(flow.size), self._options.small_window
        if self._windows.request((peer.key, flow.id), window):
            flow.receiver.grant()
        elif peer.small.request(flow.id, min(window, small)):
            flow.receiver.grant(small)

    def _give_back(self, key: str, transfer: bytes) -> None:
        """A transfer has ended: others have the whole window now."""
        for other, granted in self._windows.release((key, transfer)):
            peer = self._peers.get(other)
            if peer is None:  # it is being dropped, and gives this one back next
                continue
            served = peer.transfers[granted]
            assert isinstance(served.flow, Inbound)
            served.flow.receiver.grant()
            self._credit_to(served)
            self._give_back_small(peer, granted)

    def _give_back_small(self, peer: _Peer, transfer: bytes) -> None:
        """A transfer needs no small window: others of the peer have one now."""
        for granted in peer.small.release(transfer):
            served = peer.transfers[granted]
            assert isinstance(served.flow, Inbound)
            served.flow.receiver.grant(self._options.small_window)
            self._credit_to(served)

    def _credit_to(self, served: _Served) -> None:
        assert isinstance(served.flow, Inbound)
        self._tell(served.route, Credit(served.flow.id, *served.flow.receiver.position()))

    def _forget_if_idle(self, peer: _Peer) -> None:
        if not peer.transfers:
            self._peers.pop(peer.key, None)

    def _tell(self, route: bytes, message: BulkMessage) -> None:
        # What does not get through is repeated.
        self._send(route, [pack(message)])


def _not_here(digest: str) -> BlobMissing:
    """The same, whether there is none or the peer may not have it."""
    return BlobMissing(f"the blob {digest[:12]} is not here")


def _fault(operation: Operation, digest: str) -> BulkError:
    _log.exception("could not %s the blob %s", operation, digest)
    return BulkError(f"the peer could not {operation} the blob {digest[:12]}")
