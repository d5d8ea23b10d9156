"""The side of bulk transfers that listens; told of messages and of time, knows no sockets.

Whatever belongs to one peer is found by its authenticated key, so that a transfer goes on
over the peer's next connection, and ends when the peer is no longer admitted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from manta.transports.bulk.flow import Allowance, Budget
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
from manta.transports.errors import BlobCorrupt, BlobRefused, BulkError, RemoteProtocolError
from manta.transports.security.admission import Standing

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.blobs.interface import Depot
    from manta.transports.bulk.interface import Operation
    from manta.transports.bulk.options import BulkOptions
    from manta.transports.bulk.transfers import Statistics
    from manta.transports.interface import Buffer
    from manta.transports.security.admission import Admission

    Authorize = Callable[[str, Operation, str], bool]
    SendTo = Callable[[bytes, list[Buffer]], bool]

_log = logging.getLogger(__name__)


class _Served:
    """A transfer that a peer opened."""

    def __init__(self, flow: Inbound | Outbound, digest: str, route: bytes, now: float) -> None:
        self.flow = flow
        self.digest = digest
        self.route = route  # the connection that the peer was last heard on
        self.heard = now


class _Desk:
    """All that is done for one peer."""

    def __init__(self, key: str, options: BulkOptions) -> None:
        self.key = key
        self.transfers: dict[bytes, _Served] = {}
        self.budget: Budget[bytes] = Budget(options.peer_budget)
        self.allowance = Allowance(options.peer_budget)


class BulkServer:
    """Serves a depot to the peers that an `Admission` knows."""

    def __init__(
        self,
        depot: Depot,
        admission: Admission,
        authorize: Authorize,
        send: SendTo,
        options: BulkOptions,
        total: Statistics,
    ) -> None:
        self._depot = depot
        self._admission = admission
        self._authorize = authorize
        self._send = send
        self._options = options
        self._total = total
        self._desks: dict[str, _Desk] = {}

    @property
    def busy(self) -> bool:
        """Is any transfer open?"""
        return bool(self._desks)

    def received(
        self, route: bytes, key: str, message: BulkMessage, payload: Buffer | None, now: float
    ) -> None:
        """Raises RemoteProtocolError, for which the peer is to be dropped."""
        if self._admission.standing(key) is not Standing.KNOWN:
            self.drop(key)
            return
        desk = self._desks.get(key)
        if desk is None:
            desk = self._desks[key] = _Desk(key, self._options)
        try:
            served = desk.transfers.get(message.id)
            if served is not None:
                served.route = route
                served.heard = now
            match message:
                case OpenPush() | OpenFetch():
                    self._open(desk, served, route, message, now)
                case Chunk():
                    if payload is None:
                        raise RemoteProtocolError("a chunk without its bytes")
                    self._chunk(desk, served, message, payload)
                case Credit():
                    self._credit(desk, served, message)
                case Cancel():
                    if served is not None:
                        self._close(desk, message.id)
                case Accept() | Done() | Failed():
                    raise RemoteProtocolError(f"{type(message).__name__} from a client")
                case _:
                    assert_never(message)
        finally:
            self._forget_if_idle(desk)

    def tick(self, now: float) -> None:
        """Give up transfers whose peers have been silent for long or were denied."""
        for desk in list(self._desks.values()):
            if self._admission.standing(desk.key) is not Standing.KNOWN:
                self.drop(desk.key)
                continue
            for transfer, served in list(desk.transfers.items()):
                missing = self._is_missing(served, now)
                idle = now - served.heard >= self._options.idle
                # The peer's other transfers shall not wait for what is lost.
                if idle or (missing and desk.budget.waiting):
                    self._close(desk, transfer)
                elif missing and isinstance(served.flow, Outbound):
                    served.flow.sender.pause()
            self._pump(desk)
            self._forget_if_idle(desk)

    def drop(self, key: str) -> None:
        """Forget the peer and its transfers."""
        desk = self._desks.pop(key, None)
        if desk is not None:
            for served in desk.transfers.values():
                served.flow.close()

    def close(self) -> None:
        for key in list(self._desks):
            self.drop(key)

    def _open(
        self,
        desk: _Desk,
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
            if not self._has_room(desk, now):
                return  # it will ask again
            try:
                served = self._serve(desk, route, message, now)
            except BulkError as error:
                self._tell(route, failed(message.id, error))
                return
            if served is None:
                self._tell(route, Done(message.id))
                return
        flow = served.flow
        if isinstance(flow, Inbound):
            if flow.receiver.complete:  # an empty blob
                self._complete(desk, served, flow)
                return
            stand = flow.receiver.stand()
            self._tell(route, Accept(flow.id, stand.received, stand.limit))
        elif isinstance(message, OpenFetch):
            flow.sender.start(message.received, message.limit)
            self._tell(route, Accept(flow.id, message.received, message.limit))
            self._pump(desk)
            if flow.sender.done:
                self._close(desk, flow.id)

    def _has_room(self, desk: _Desk, now: float) -> bool:
        """Whether the peer may open another transfer; those that it has left make room."""
        if len(desk.transfers) >= self._options.max_served:
            for transfer, served in list(desk.transfers.items()):
                if self._is_missing(served, now):
                    self._close(desk, transfer)
        return len(desk.transfers) < self._options.max_served

    def _is_missing(self, served: _Served, now: float) -> bool:
        """Whoever waits asks again: has the peer, or its connection, gone?"""
        return now - served.heard >= 2 * self._options.ask_again

    def _serve(
        self, desk: _Desk, route: bytes, message: OpenPush | OpenFetch, now: float
    ) -> _Served | None:
        """Begin a transfer; None when there is nothing to move. Raises BulkError."""
        digest, size = message.digest, message.size
        operation: Operation = "push" if isinstance(message, OpenPush) else "fetch"
        options = self._options
        try:
            if not self._authorize(desk.key, operation, digest):
                raise BlobRefused(f"this peer may not {operation} the blob {digest[:12]}")
            flow: Inbound | Outbound
            if isinstance(message, OpenPush):
                sink = self._depot.sink(digest, size)
                if sink is None:
                    return None
                flow = Inbound(message.id, digest, size, sink, options.window_of(size), self._total)
                if desk.budget.ask(flow.id, options.window_of(size)):
                    flow.receiver.grant()
            else:
                source = self._depot.source(digest)
                if source.size != size:
                    source.close()
                    raise BlobCorrupt(
                        f"the blob {digest[:12]} has {source.size} bytes here, not {size}"
                    )
                flow = Outbound(message.id, source, options.chunk, desk.allowance, self._total)
        except BulkError:
            raise
        except Exception as error:
            _log.exception("could not %s the blob %s", operation, digest)
            raise BulkError(f"the peer could not {operation} the blob {digest[:12]}") from error
        served = desk.transfers[message.id] = _Served(flow, digest, route, now)
        return served

    def _chunk(self, desk: _Desk, served: _Served | None, message: Chunk, payload: Buffer) -> None:
        if served is None:
            return  # of a transfer that failed meanwhile
        flow = served.flow
        if not isinstance(flow, Inbound):
            raise RemoteProtocolError("a chunk for a blob that is being fetched")
        try:
            credit = flow.chunk(message, payload)
        except BulkError as error:
            self._fail(desk, served, error)
            return
        if flow.receiver.complete:
            self._complete(desk, served, flow)
        elif credit is not None:
            self._tell(served.route, credit)

    def _complete(self, desk: _Desk, served: _Served, flow: Inbound) -> None:
        try:
            flow.commit()
        except BulkError as error:
            self._fail(desk, served, error)
            return
        self._finish(desk, served)
        # Others that push the same blob can stop.
        for other in list(self._desks.values()):
            for twin in list(other.transfers.values()):
                if twin.digest == served.digest and isinstance(twin.flow, Inbound):
                    self._finish(other, twin)

    def _finish(self, desk: _Desk, served: _Served) -> None:
        self._tell(served.route, Done(served.flow.id))
        self._close(desk, served.flow.id)

    def _fail(self, desk: _Desk, served: _Served, error: BulkError) -> None:
        self._tell(served.route, failed(served.flow.id, error))
        self._close(desk, served.flow.id)

    def _credit(self, desk: _Desk, served: _Served | None, message: Credit) -> None:
        if served is None:
            return
        flow = served.flow
        if not isinstance(flow, Outbound):
            raise RemoteProtocolError("credit for a blob that is being pushed")
        flow.sender.credit(message.received, message.limit)
        if flow.sender.done:
            self._close(desk, flow.id)
        self._pump(desk)

    def _pump(self, desk: _Desk) -> None:
        for served in desk.transfers.values():
            if isinstance(served.flow, Outbound):
                route = served.route
                served.flow.pump(lambda frames, route=route: self._send(route, frames))  # type: ignore[misc]

    def _close(self, desk: _Desk, transfer: bytes) -> None:
        served = desk.transfers.pop(transfer)
        served.flow.close()
        for turn in desk.budget.free(transfer):
            next_one = desk.transfers[turn]
            assert isinstance(next_one.flow, Inbound)
            next_one.flow.receiver.grant()
            stand = next_one.flow.receiver.stand()
            self._tell(next_one.route, Credit(turn, stand.received, stand.limit))

    def _forget_if_idle(self, desk: _Desk) -> None:
        if not desk.transfers:
            self._desks.pop(desk.key, None)

    def _tell(self, route: bytes, message: BulkMessage) -> None:
        # What does not get through is asked for again.
        self._send(route, [pack(message)])
