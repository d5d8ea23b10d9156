"""What the node knows of its runtimes and their attempts.

It outlives a failure of the LightService, so that tasks notice nothing but a pause: tokens,
requests and their answers, the reading ends of what they print, and events that their owners have
not taken yet. Everything here belongs to the server's thread unless it says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manta.actors import ActorDead, MailboxFull
from manta.node.task_server.messages import (
    CancelAttempt,
    CloseSession,
    CutAttempt,
    Descriptor,
    EndKept,
    How,
    RunAttempt,
    SessionLost,
    TakeStacks,
)
from manta.node.task_server.streams import Line, LogStream, PipeStream, Stream
from manta.protocol.values import BlobRef
from manta.transports.errors import BulkError

if TYPE_CHECKING:
    from manta.actors import Ref
    from manta.node.blobs.tiered_depot import TieredDepot
    from manta.node.task_server.memory import Incoming, Memory
    from manta.node.task_server.requests import Reply
    from manta.protocol.node import Instance

SOCKET = "light"
LONGEST_PATH = 100  # bytes; the kernel's limit is 107

TAIL = 30  # lines kept for an error
FAILURES, FAILURES_WITHIN = 5, 60.0  # so many of a server, within so many seconds
_EARLY = 1_000  # lines kept until there is an attempt to attribute them to

_PRINTED = partial(PipeStream, "stdout"), partial(PipeStream, "stderr"), LogStream

Message = tuple[dict[str, Any], BlobRef | list[int] | Descriptor | None]
"""A message to a task and what goes along: a blob of the depot, descriptors that stay open, or one
that is closed when it was sent."""


@dataclass(eq=False)
class RequestChannel:
    """Carries one request of an attempt at a time. It outlives its connections."""

    attempt: Attempt
    last: int = 0
    """The number of the latest request."""
    reply: Reply | None = None
    """To the latest request."""
    answer: list[Message] | None = None
    pins: list[str] = field(default_factory=list)
    """Blobs of the latest request and its answer, which must not be deleted."""


@dataclass(eq=False)
class Attempt:
    """One run of an instance in a runtime."""

    session: RuntimeSession
    number: int
    order: RunAttempt
    token: str = field(default_factory=lambda: os.urandom(16).hex())
    started: float | None = None
    ends: list[int] = field(default_factory=list)
    """The descriptor that goes along with its order: its connection."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    channels: dict[int, RequestChannel] = field(default_factory=dict)
    """By number; as many as its threads needed at once."""
    abandoned: int = 0
    """How many requests are under way whose answers the task does not wait for."""
    memories: dict[int, Memory | Incoming] = field(default_factory=dict)
    """What was handed out and has not been handed in, by number."""
    memory_count: int = 0
    cancelled: str | None = None
    exited: bool = False
    """Its process is gone, but what it returned may not be taken in yet."""
    no_memory: bool = False
    """The kernel has killed it, or what it started, as its container took more than it may."""
    how: How | None = None
    """How its process ended, once it is gone."""
    ended: bool = False

    @property
    def instance(self) -> Instance:
        return self.order.assignment.instance

    @property
    def name(self) -> str:
        instance = self.instance
        return f"{instance.alias}.{instance.index}"

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()
        for memory in self.memories.values():
            memory.close()
        self.memories.clear()


@dataclass(eq=False)
class RuntimeSession:
    """The node's side of one runtime."""

    id: str
    owner: Ref
    token: str = field(default_factory=lambda: os.urandom(16).hex())
    attempts: dict[int, Attempt] = field(default_factory=dict)
    count: int = 0
    outbox: deque[Any] = field(default_factory=deque)
    stuck_since: float | None = None
    """Since when the owner has taken no events."""
    is_dead: bool = False
    """Whether the owner had no incarnation at the last try."""
    is_ready: bool = False
    lives_on: bool | None = None
    """Whether the module's object lives on between attempts, once that is known."""
    streams: list[Stream] = field(default_factory=list)
    """What its attempts print and log, one after another, and what is printed between them."""
    ends: list[int] = field(default_factory=list)
    """The streams' writing ends, until they are handed out."""
    early: deque[Line] = field(default_factory=lambda: deque(maxlen=_EARLY))
    """What was printed while no attempt ran."""
    pins: list[str] = field(default_factory=list)
    """Blobs of the latest attempt that ended, until its end is in the journal."""
    waiting_since: float | None = None
    """Since when the runtime is expected to come back, after its server ended."""

    @property
    def running(self) -> Attempt | None:
        """The attempt that runs, and prints: they run one after another."""
        return next((r for r in self.attempts.values() if not r.ended), None)

    def open_streams(self) -> None:
        """Raises OSError; what was opened by then is closed with the session."""
        for kind in _PRINTED:
            stream = kind()
            self.streams.append(stream)
            self.ends.append(stream.end)

    def close_ends(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()

    def close(self) -> None:
        self.close_ends()
        for stream in self.streams:
            stream.close()
        self.streams.clear()
        for attempt in self.attempts.values():
            attempt.close()
        self.attempts.clear()

    def deliver(self) -> bool:
        """Gives the owner its events, in order; False if some are left."""
        while self.outbox:
            try:
                self.owner.tell(self.outbox[0])
            except (MailboxFull, ActorDead) as error:
                self.is_dead = isinstance(error, ActorDead)
                if self.stuck_since is None:
                    self.stuck_since = time.monotonic()
                return False
            self.outbox.popleft()
        self.stuck_since = None
        return True


class RuntimeSessions:
    """The sessions of a node: one object for its life, handed to each LightService.

    `folder` holds the socket and is what a container mounts. If its path is too long for a socket,
    a folder within the system's temporary one is used instead. `keep_output` takes what attempts
    write, on the server's thread: nothing more is read while it runs, nor while `output_waits` is
    true of their swarm.
    """

    def __init__(
        self,
        depot: TieredDepot,
        folder: Path,
        keep_output: Callable[[Instance, list[Line]], None],
        output_waits: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.depot = depot
        self._keep_output = keep_output
        self._output_waits = output_waits
        self.folder = _socket_folder(folder)
        self.by_id: dict[str, RuntimeSession] = {}
        self.by_token: dict[str, RuntimeSession | Attempt] = {}
        self.wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._inbox: deque[Callable[[Any], None]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._leaving: set[RuntimeSession] = set()

    @property
    def path(self) -> str:
        return str(self.folder / SOCKET)

    def open(self, id: str, owner: Ref) -> RuntimeSession:
        """Opens a session, or gives an open one a new owner; from any thread.

        `owner` receives the events. A reference by path reaches its successors as well.
        """
        with self._lock:
            session = self.by_id.get(id)
            if session is None:
                session = self.by_id[id] = RuntimeSession(id, owner)
                self.by_token[session.token] = session
            session.owner = owner
            return session

    def post(self, job: Callable[[Any], None]) -> None:
        """Has the server do a job on its thread; from any thread, also between two servers."""
        self._inbox.append(job)
        self.wake()

    def wake(self) -> None:
        """Wakes the server up; from any thread."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.wake_up, 1)

    def tell(
        self,
        message: RunAttempt | TakeStacks | CancelAttempt | CutAttempt | EndKept | CloseSession,
    ) -> None:
        """Has this server, or the next, do something; from any thread."""
        match message:
            case RunAttempt() as order:
                self.post(lambda server: server.run_attempt(order))
            case TakeStacks(id, instance):
                self.post(lambda server: server.take_stacks(id, instance))
            case CancelAttempt(id, instance, reason, stacks):
                self.post(lambda server: server.cancel_attempt(id, instance, reason, stacks=stacks))
            case CutAttempt(id, instance, why):
                self.post(lambda server: server.cut_attempt(id, instance, why))
            case EndKept(id):
                self.post(lambda server: server.end_kept(id))
            case CloseSession(id):
                session = self.forget(id)
                if session is not None:
                    self.post(lambda server: server.close_session(session))

    def jobs(self) -> Iterator[Callable[[Any], None]]:
        """Posted jobs, taken one by one, so that a failure loses only the job that failed."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_up)
        while self._inbox:
            yield self._inbox.popleft()

    def add_attempt(
        self, session: RuntimeSession, order: RunAttempt
    ) -> tuple[Attempt, socket.socket]:
        """Returns the attempt and the node's end of its first connection. Raises OSError."""
        ours, theirs = socket.socketpair()
        session.count += 1
        attempt = Attempt(session, session.count, order, ends=[theirs.detach()])
        session.attempts[attempt.number] = attempt
        self.by_token[attempt.token] = attempt
        return attempt, ours

    def emit(self, attempt: Attempt, lines: list[Line]) -> None:
        """Keep what the attempt wrote."""
        if lines:
            attempt.tail.extend(text for _, _, text in lines)
            self._keep_output(attempt.instance, lines)

    def output_waits(self, session: RuntimeSession) -> bool:
        """Whether what runs is to wait before it writes more. What is being ended is not."""
        attempt = session.running
        if attempt is None or attempt.cancelled is not None:
            return False
        return self._output_waits(attempt.instance.swarm_id)

    def remove_attempt(self, attempt: Attempt) -> None:
        self.by_token.pop(attempt.token, None)
        attempt.session.attempts.pop(attempt.number, None)
        attempt.close()
        self.unpin(attempt.session.pins)
        for channel in attempt.channels.values():
            attempt.session.pins += channel.pins

    def server_failed(self, error: BaseException) -> None:
        """A server was ended by an error. What runs is lost where that happens again and again:
        its tasks would wait for ever. Called while no server runs."""
        now = time.monotonic()
        self._failures.append(now)
        if len(self._failures) < FAILURES or now - self._failures[0] > FAILURES_WITHIN:
            return
        self._failures.clear()
        sentence = (
            f"The node's task service failed {FAILURES} times within {FAILURES_WITHIN:g} s "
            f"({type(error).__name__}: {error}); see the node's log."
        )
        for session in list(self.by_id.values()):
            session.outbox.append(SessionLost(session.id, sentence))
            session.deliver()

    def forget(self, id: str) -> RuntimeSession | None:
        """Takes a session out of use, so that nobody can join it; `remove` must follow. From any
        thread."""
        with self._lock:
            session = self.by_id.pop(id, None)
            if session is not None:
                self.by_token.pop(session.token, None)
                self._leaving.add(session)
            return session

    def remove(self, session: RuntimeSession) -> None:
        """Closes what is left of a session that was forgotten."""
        self._leaving.discard(session)
        for attempt in list(session.attempts.values()):
            self.remove_attempt(attempt)
        self.unpin(session.pins)
        session.close()

    def unpin(self, digests: list[str]) -> None:
        for digest in digests:
            with contextlib.suppress(BulkError):  # deleted meanwhile
                self.depot.unpin(digest)
        digests.clear()

    def close(self) -> None:
        """Called at the node's end, when there is no LightService any more."""
        for id in list(self.by_id):
            self.forget(id)
        for session in list(self._leaving):
            self.remove(session)
        with self._lock:
            self._closed = True
            os.close(self.wake_up)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
        with contextlib.suppress(OSError):
            self.folder.rmdir()


def _socket_folder(folder: Path) -> Path:
    """Makes the folder, in which only those who know a socket's name can find it."""
    if len(os.fsencode(folder / SOCKET)) > LONGEST_PATH:
        import tempfile  # rarely needed, and slow to import

        name = blake2b(os.fsencode(folder.absolute()), digest_size=8).hexdigest()
        folder = Path(tempfile.gettempdir(), f"manta-{os.getuid()}-{name}")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = folder.stat(follow_symlinks=False)
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else: remove it.")
    folder.chmod(0o711)
    return folder
