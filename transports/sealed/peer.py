"""One peer: what is sent to it and expected of it, over whichever connection there is."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from manta.transports.errors import BulkError, DownReason, LocalTransportError
from manta.transports.sealed.in_file import InFile
from manta.transports.sealed.sources import Source
from manta.transports.sealed.transfers import Ended, Transfers

if TYPE_CHECKING:
    from manta.transports.interface import Buffer
    from manta.transports.jobs import Job
    from manta.transports.sealed.options import Pace, PeerOptions
    from manta.transports.sealed.records import Head
    from manta.transports.sealed.transfers import Event, Said, Side

Done = Callable[[BulkError | None], object]
Upto = Callable[[int], object]
Place = Callable[[int], "memoryview | InFile | None"]
"""Has memory, or a file, for a transfer, now that it begins; see `BulkPeer.adopt`."""

_log = logging.getLogger(__name__)


Changed = Callable[["BulkPeer"], object]


def _ignore(_: int) -> None: ...


class _Calls(NamedTuple):
    """Whom to tell of a transfer, and its memory."""

    done: Done
    progress: Upto
    source: Source | None = None
    destination: memoryview | InFile | None = None
    place: Place | None = None  # to be asked where there is no destination yet


class Landing(NamedTuple):
    """What becomes of a chunk."""

    wanted: bool  # if not, it is read and forgotten
    memory: memoryview | None = None
    file: InFile | None = None  # without either, it stays in the memfd of its sender


class Connection(Protocol):
    """What carries a peer's messages."""

    @property
    def pace(self) -> Pace: ...

    @property
    def is_makeshift(self) -> bool:
        """Whether one is to be tried for that is better."""

    def wake(self) -> None:
        """There may be something to send. Called with the peer's lock."""

    def end(self, reason: DownReason) -> None:
        """From any thread, at once and without waiting; the connection detaches itself."""


class BulkPeer:
    """Moves byte ranges to and from one peer; lost connections are resumed. Thread-safe.

    A transfer is a range of bytes under an id of 16 bytes that its sender uses once; both
    directions have their own. `done` and `progress` are called on threads of this package, one at a
    time, never from within a call of this class and never with a lock held; they must be short.
    Memory given to `send` or `expect` is in use until `done` was called.
    """

    def __init__(
        self,
        key: str,
        options: PeerOptions,
        post: Callable[[Job], object],
        changed: Changed | None,
    ) -> None:
        """`post` has a job run soon, on a thread of the package; `changed` hears of the state."""
        self.key = key
        self.options = options
        self.state: DownReason | None = DownReason.CONNECTING
        """None while there is a connection, else why there is none."""
        self.sent = 0  # bytes of transfers, since the start
        self.received = 0
        self.lock = threading.Condition(threading.Lock())
        """Notified when there may be something to send, and when a connection goes."""
        self._post = post
        self._on_state = changed
        self._transfers = Transfers(options)
        self._calls: dict[tuple[Side, bytes], _Calls] = {}
        self._connection: Connection | None = None
        self._next: Connection | None = None  # which waits for that one to go
        self._closed: BulkError | None = None
        self._telling = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.key[:8]} {self.state or 'up'}>"

    # --- for any thread ----------------------------------------------------------------------

    def send(
        self,
        transfer: bytes,
        parts: Sequence[Buffer],
        *,
        done: Done,
        progress: Upto = _ignore,
        ready: int | None = None,
        memfd: int = -1,
        at: int = 0,
    ) -> None:
        """Send the parts, in their order, as one range of bytes.

        Only the first `ready` bytes are there yet, if it is given: `ready` tells of more. What is
        there must not change. `memfd` is a descriptor of a memfd that holds the same bytes from its
        byte `at` on: between processes of one machine it is passed instead of them.
        `progress(upto)` and `done(error)` say what has arrived there.
        Raises LocalTransportError for an id in use, and BulkError when too many transfers wait.
        """
        source = Source(parts, memfd, at)
        with self.lock:
            self._check_open()
            self._transfers.send(transfer, source.size, source.size if ready is None else ready)
            self._calls["sending", transfer] = _Calls(done, progress, source=source)
            self._changed()

    def ready(self, transfer: bytes, upto: int) -> None:
        """The first `upto` bytes of a transfer that is sent are there; none if it has ended."""
        with self.lock:
            self._transfers.ready(transfer, upto)
            self._changed()

    def cancel(self, transfer: bytes, why: str) -> None:
        """End a transfer that is sent, which the receiver is told; none if it has ended."""
        with self.lock:
            self._transfers.cancel(transfer, why)
            self._changed()

    def expect(
        self, transfer: bytes, destination: memoryview, *, done: Done, progress: Upto = _ignore
    ) -> None:
        """Receive a transfer that has exactly the destination's size, whether it was begun or not.

        `progress(upto)` says how much is there, from the start on; `done(error)` that all is, or
        never will be. Raises LocalTransportError for an id in use or memory that is read-only.
        """
        view = _writable(destination)
        self._expect(transfer, len(view), _Calls(done, progress, destination=view))

    def adopt(
        self, transfer: bytes, size: int, place: Place, *, done: Done, progress: Upto = _ignore
    ) -> None:
        """As `expect`, with memory, or a file, that is asked for once it is needed, or none.

        `place(memfd)` is called once, as `done` is. It returns what is to be filled.
        Where the sender passed a memfd that begins with the bytes, and that nobody can change any
        more, it gets its descriptor, else -1. With a descriptor it may keep a duplicate instead,
        and return None: no byte is copied, and `progress` and `done` say what of it is valid.
        If it raises, the transfer is refused.
        """
        self._expect(transfer, size, _Calls(done, progress, place=place))

    def refuse(self, transfer: bytes, why: str) -> None:
        """End a transfer that is received, or is not to be; the sender is told why."""
        with self.lock:
            self._transfers.refuse(transfer, why)
            self._changed()

    def close(self, why: str = "this side has closed the transfers") -> None:
        """End the connection and all transfers, with BulkError. Idempotent."""
        self.end(BulkError(why), DownReason.CLOSED)

    # --- for the package ---------------------------------------------------------------------

    def end(self, error: BulkError, reason: DownReason) -> None:
        """For good: nothing is sent or handled after it."""
        with self.lock:
            if self._closed is None:
                self._closed = error
                self._become(reason)
                self._transfers.fail(error)
                for connection in (self._connection, self._next):
                    if connection is not None:
                        connection.end(reason)
                self._changed()
                self.lock.notify_all()

    @property
    def closed(self) -> bool:
        return self._closed is not None

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def is_makeshift(self) -> bool:
        """Whether there is a connection, which is to give way to a better one."""
        connection = self._connection
        return connection is not None and connection.is_makeshift

    def attach(self, connection: Connection) -> bool:
        """Use this connection from now on, once the one before has gone; False if not to be used.

        The newest is the best: who dials anew knows that the one before is lost.
        """
        with self.lock:
            if self._next is not None:
                self._next.end(DownReason.CLOSED)
            self._next = connection
            if self._connection is not None:
                self._connection.end(DownReason.CLOSED)
            self.lock.notify_all()
            while self._connection is not None and self._next is connection and not self._closed:
                self.lock.wait()
            if self._next is not connection or self._closed is not None:
                return False
            self._next = None
            self._connection = connection
            self._become(None)
            self._transfers.connected(connection.pace)
            self._changed()
            return True

    def detach(self, connection: Connection, reason: DownReason) -> None:
        """It has ended, and no chunk is in hand for it."""
        with self.lock:
            if self._connection is connection:
                self._connection = None
                if self._closed is None:
                    self._become(reason)
                self._transfers.lost()
            self.lock.notify_all()
        self.tell()

    def down(self, reason: DownReason) -> None:
        """A connection could not be made."""
        with self.lock:
            if self._closed is None and self._connection is None:
                self._become(reason)

    def take(self) -> tuple[Said, Source | None] | None:
        """What is to be sent next, and the source of a chunk. With the lock."""
        said = self._transfers.take()
        if said is None:
            return None
        calls = self._calls.get(("sending", said.head.transfer))
        return said, calls.source if calls is not None else None

    def gone(self, head: Head) -> None:
        """A chunk that was taken is with the system, or lost. With the lock."""
        self.sent += head.length
        self._transfers.sent(head)
        self._changed()

    def place(self, head: Head, memfd: int = -1) -> Landing:
        """Where a chunk belongs, for a reader's thread; if it is wanted, `landed` must follow.

        `memfd` has the chunk, and all of its transfer. Raises RemoteProtocolError.
        """
        key: tuple[Side, bytes] = "receiving", head.transfer
        with self.lock:
            if not self._transfers.lands(head):
                return Landing(wanted=False)
            calls = self._calls[key]
        if calls.place is not None and not self._is_placed(key, calls.place, head, memfd):
            return Landing(wanted=False)
        destination = self._calls[key].destination
        if isinstance(destination, InFile):
            return Landing(True, file=destination)
        if destination is not None:
            return Landing(True, destination[head.offset : head.offset + head.length])
        if memfd < 0:
            self._have_no_place(head, "its memfd was adopted, and is passed no longer")
            return Landing(wanted=False)
        return Landing(wanted=True)

    def _is_placed(self, key: tuple[Side, bytes], place: Place, head: Head, memfd: int) -> bool:
        """Ask for the memory, and keep it."""
        try:
            memory = place(memfd)
            if memory is None and memfd < 0:
                raise LocalTransportError("none was given for it")
            if isinstance(memory, memoryview):
                memory = _writable(memory)
            size = memory.size if isinstance(memory, InFile) else len(memory or b"")
            if memory is not None and size != head.limit:
                raise LocalTransportError(f"{size} bytes of memory were given for it")
        except Exception as error:
            _log.exception("no memory for a transfer from %r: it is refused", self)
            self._have_no_place(head, f"no memory for {head.limit} bytes: {error}")
            return False
        with self.lock:
            self._calls[key] = self._calls[key]._replace(destination=memory, place=None)
        return True

    def _have_no_place(self, head: Head, why: str) -> None:
        with self.lock:
            self._transfers.landed(head, whole=False)
            self._transfers.refuse(head.transfer, why)
            self._changed()

    def has_open(self, transfer: bytes) -> bool:
        """Does the peer have it open?"""
        with self.lock:
            return self._transfers.has_open(transfer)

    def landed(self, head: Head, *, whole: bool) -> None:
        """The chunk is in its place, or could not be read whole."""
        with self.lock:
            self._transfers.landed(head, whole=whole)
            self.received += head.length if whole else 0
            self._wake()
        self.tell()

    def heard(self, head: Head, text: str, now: float) -> None:
        """A message that is no chunk came. Raises RemoteProtocolError."""
        with self.lock:
            if self._closed is None:
                self._transfers.received(head, text, now)
                self._wake()
        self.tell()

    def tick(self, now: float) -> None:
        with self.lock:
            self._transfers.tick(now)
            self._wake()

    def tell(self) -> None:
        """Call back what has come about, unless another thread does."""
        while True:
            with self.lock:
                if self._telling:
                    return
                events = self._transfers.events()
                if not events:
                    return
                self._telling = True
                calls = [self._call(event) for event in events]
            for call in calls:
                try:
                    call()
                except Exception:
                    _log.exception("a callback of a transfer failed; the transfers go on")
            with self.lock:
                self._telling = False

    def _expect(self, transfer: bytes, size: int, calls: _Calls) -> None:
        with self.lock:
            self._check_open()
            self._transfers.expect(transfer, size)
            self._calls["receiving", transfer] = calls
            self._changed()

    def _call(self, event: Event) -> Callable[[], object]:
        key = event.side, event.transfer
        if isinstance(event, Ended):
            return partial(self._calls.pop(key).done, event.error)
        return partial(self._calls[key].progress, event.upto)

    def _become(self, state: DownReason | None) -> None:
        if self.state is not state:
            self.state = state
            if self._on_state is not None:
                self._post(partial(self._on_state, self))

    def _changed(self) -> None:
        """After a call from outside, whose thread is not the one to call back."""
        self._wake()
        if self._transfers.eventful and not self._telling:
            self._post(self.tell)

    def _wake(self) -> None:
        if self._connection is not None and self._transfers.pending:
            self._connection.wake()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise BulkError(f"nothing can be moved any longer: {self._closed}")


def _writable(memory: memoryview) -> memoryview:
    if memory.readonly:
        raise LocalTransportError("what arrives needs memory that can be written: this cannot")
    return memory.cast("B") if memory.nbytes else memoryview(bytearray())
