"""The dialling side of bulk transfers. Pure but for the depot: messages and time in, messages out.

A request survives lost connections: whenever the peer is connected again, the transfer is
reopened and resumes at the receiver's position.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, assert_never

from manta.transports.bulk.flow import Allowance, Budget, RequestTimer
from manta.transports.bulk.transfers import Inbound, Outbound, Statistics
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
    error_of,
    pack,
)
from manta.transports.errors import (
    BlobCorrupt,
    BulkError,
    BulkTimeout,
    DownReason,
    RemoteProtocolError,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from manta.transports.blobs.interface import Depot, Sink
    from manta.transports.bulk.options import BulkOptions, Operation
    from manta.transports.interface import Buffer

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Request:
    """A push or a fetch, and the future of its outcome."""

    operation: Operation
    digest: str
    size: int
    future: Future[None]
    timer: RequestTimer
    sink: Sink | None = None
    """What is fetched goes here; None: into the depot."""
    flow: Inbound | Outbound | None = None
    id: bytes = field(default_factory=partial(os.urandom, 16))

    def settle(self, error: BaseException | None = None) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(error)


class BulkClient:
    """All requests to one dialled peer."""

    def __init__(
        self,
        address: str,
        depot: Depot,
        send: Callable[[list[Buffer]], bool],
        options: BulkOptions,
        total: Statistics,
    ) -> None:
        self.address = address
        self.down: DownReason | None = DownReason.CONNECTING
        self._linked_at: float | None = None
        """When there was a connection last, or the first request without one."""
        self._depot = depot
        self._send = send
        self._options = options
        self._total = total
        self._open: dict[bytes, Request] = {}
        self._waiting: deque[Request] = deque()
        self._budget: Budget[bytes] = Budget(options.peer_budget)
        self._allowance = Allowance(options.peer_budget)

    @property
    def busy(self) -> bool:
        """Is any request open or waiting?"""
        return bool(self._open or self._waiting)

    def start(self, request: Request) -> None:
        """Open the transfer, now or once others have ended."""
        if not self.busy:
            self._linked_at = None
        self._waiting.append(request)
        self._begin_more()

    def forget(self, request: Request) -> None:
        """Cancel a request."""
        if request in self._waiting:
            self._waiting.remove(request)
        elif request.id in self._open:
            self._tell(Cancel(request.id))
            self._end(request)

    def connected(self) -> None:
        self.down = None
        for request in self._open.values():
            self._ask(request)

    def lost(self, reason: DownReason) -> None:
        self.down = reason
        for request in self._open.values():
            if isinstance(request.flow, Outbound):
                request.flow.sender.pause()

    def received(self, message: BulkMessage, payload: Buffer | None, now: float) -> None:
        """Handle a message. Raises RemoteProtocolError, which costs the peer the connection."""
        request = self._open.get(message.id)
        if request is None:
            return  # it was cancelled
        if isinstance(message, Chunk):
            request.timer.moved(now)
        else:
            request.timer.heard(now)
        flow = request.flow
        match message:
            case Accept():
                if isinstance(flow, Outbound):
                    flow.sender.start(message.received, message.limit)
                    self._pump()
                elif isinstance(flow, Inbound) and flow.receiver.complete:  # an empty blob
                    self._complete(request, flow)
            case Credit():
                if not isinstance(flow, Outbound):
                    raise RemoteProtocolError("credit for a blob that is being fetched")
                flow.sender.credit(message.received, message.limit)
                self._pump()
            case Chunk():
                if not isinstance(flow, Inbound) or payload is None:
                    raise RemoteProtocolError("a chunk for a blob that is being pushed")
                self._chunk(request, flow, message, payload)
            case Done():
                if not isinstance(flow, Outbound):
                    raise RemoteProtocolError("a fetch that the server calls done")
                self._end(request)
                request.settle()
            case Failed():
                self._end(request)
                request.settle(error_of(message))
            case OpenPush() | OpenFetch() | Cancel():
                raise RemoteProtocolError(f"{type(message).__name__} from a server")
            case _:
                assert_never(message)

    def tick(self, now: float) -> None:
        """Repeat what a silent peer was asked, and give up what has taken too long."""
        if self.down is None or self._linked_at is None:
            self._linked_at = now
        if now >= self._linked_at + self._options.unlinked:
            self._linked_at = None
            for request in [*self._open.values(), *self._waiting]:
                self._give_up(request, now)
        for request in self._waiting:
            request.timer.moved(now)  # others are first
        for request in [*self._open.values(), *self._waiting]:
            match request.timer.due(now):
                case "give up":
                    self._give_up(request, now)
                case "repeat":
                    if self.down is None and request.id in self._open:
                        self._ask(request)

    def fail(self, error: Exception) -> None:
        """End all requests with this error."""
        requests = [*self._open.values(), *self._waiting]
        self._waiting.clear()
        for request in requests:
            self._end(request)
            request.settle(error)

    def _begin_more(self) -> None:
        while self._waiting and len(self._open) < self._options.max_opened:
            request = self._waiting.popleft()
            try:
                begun = self._begin(request)
            except Exception as error:
                if not isinstance(error, BulkError):
                    _log.exception("could not begin to %s %s", request.operation, request.digest)
                request.settle(error)
                continue
            if not begun:
                request.settle()
                continue
            self._open[request.id] = request
            if self.down is None:
                self._ask(request)

    def _begin(self, request: Request) -> bool:
        """False when the blob is already here. Raises BulkError."""
        options, size = self._options, request.size
        if request.operation == "push":
            source = self._depot.source(request.digest)
            if source.size != size:
                source.close()
                raise BlobCorrupt(
                    f"the blob {request.digest[:12]} has {source.size} bytes here, not {size}"
                )
            request.flow = Outbound(request.id, source, options.chunk, self._allowance, self._total)
            return True
        sink = request.sink
        if sink is None:
            sink = self._depot.sink(request.digest, size)
        if sink is None:
            return False
        window = options.window_of(size)
        request.flow = Inbound(request.id, request.digest, size, sink, window, self._total)
        if self._budget.request(request.id, window):
            request.flow.receiver.grant()
        return True

    def _ask(self, request: Request) -> None:
        flow = request.flow
        if isinstance(flow, Outbound):
            flow.sender.pause()
            self._tell(OpenPush(request.id, request.digest, request.size))
        elif isinstance(flow, Inbound):
            at = flow.receiver.position()
            self._tell(OpenFetch(request.id, request.digest, request.size, *at))

    def _chunk(self, request: Request, flow: Inbound, message: Chunk, payload: Buffer) -> None:
        try:
            credit = flow.chunk(message, payload)
        except BulkError as error:
            self.forget(request)
            request.settle(error)
            return
        if credit is not None:
            self._tell(credit)
        if flow.receiver.complete:
            self._complete(request, flow)

    def _complete(self, request: Request, flow: Inbound) -> None:
        error = None
        try:
            flow.commit()
        except BulkError as failure:
            error = failure
        self._end(request)
        request.settle(error)

    def _pump(self) -> None:
        for request in list(self._open.values()):
            if isinstance(request.flow, Outbound) and request.id in self._open:
                try:
                    request.flow.pump(self._send)
                except (BulkError, OSError) as error:  # the blob cannot be read any more
                    self.forget(request)
                    request.settle(error)

    def _end(self, request: Request) -> None:
        self._open.pop(request.id, None)
        if request.flow is not None:
            request.flow.close()
        if isinstance(request.flow, Inbound):
            for granted in self._budget.release(request.id):
                flow = self._open[granted].flow
                assert isinstance(flow, Inbound)
                flow.receiver.grant()
                self._tell(Credit(granted, *flow.receiver.position()))
        self._begin_more()
        self._pump()

    def _give_up(self, request: Request, now: float) -> None:
        error = self._timeout(request, now)
        self.forget(request)
        request.settle(error)

    def _timeout(self, request: Request, now: float) -> BulkTimeout:
        waited, done = (
            f"{round(request.timer.passed(now), 1):g} s",
            "was not begun, others being first",
        )
        if isinstance(request.flow, Inbound):
            done = f"has arrived up to byte {request.flow.receiver.received}"
        elif isinstance(request.flow, Outbound):
            done = f"is there up to byte {request.flow.sender.acknowledged}"
        state = "is connected" if self.down is None else f"is not connected ({self.down})"
        to = "push to" if request.operation == "push" else "fetch from"
        return BulkTimeout(
            f"could not {to} {self.address} the blob {request.digest[:12]} within {waited}: of its "
            f"{request.size} bytes it {done}, and the peer {state}"
        )

    def _tell(self, message: BulkMessage) -> None:
        # What does not get through is repeated.
        self._send([pack(message)])
