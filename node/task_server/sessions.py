"""What the node knows of its runtimes and their rounds.

It outlives a failure of the LightService, so that tasks notice nothing but a pause: tokens,
requests and their answers, the reading ends of what they print, events that their owners
have not taken yet. Everything here but what says otherwise belongs to the server thread.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from manta.actors import ActorDead, MailboxFull
from manta.node.task_server.messages import CancelRound, CloseSession, Output, RunRound
from manta.node.task_server.streams import Line, LogStream, PipeStream, Stream, grouped
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
_EARLY = 1_000  # lines kept until there is a round to attribute them to

Message = tuple[dict[str, Any], "BlobRef | list[int] | None"]
"""What goes to a task, and what goes along: a blob of the depot, or descriptors."""


@dataclass(eq=False)
class Channel:
    """One request of a round at a time; it outlives its connections."""

    round: Round
    last: int = 0
    """Number of the latest request."""
    reply: Reply | None = None
    """To the latest request."""
    answer: list[Message] | None = None
    pins: list[str] = field(default_factory=list)
    """Blobs of the latest request and its answer, which must not go away."""


@dataclass(eq=False)
class Round:
    """One attempt of one instance, in one runtime."""

    session: Session
    number: int
    order: RunRound
    token: str = field(default_factory=lambda: os.urandom(16).hex())
    started: float | None = None
    streams: list[Stream] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    """What goes along with its order: the streams' writing ends, its end of the connection."""
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL))
    channels: dict[int, Channel] = field(default_factory=dict)
    """As many as its threads needed at a time."""
    abandoned: int = 0
    """Requests under way whose answer the task does not wait for."""
    memories: dict[int, Memory | Incoming] = field(default_factory=dict)
    """What was handed out, and not handed in."""
    memory_count: int = 0
    cancelled: str | None = None
    exited: bool = False
    """Its process is gone; what it returned may still be taken in."""
    ended: bool = False

    @property
    def instance(self) -> Instance:
        return self.order.assignment.instance

    @property
    def name(self) -> str:
        instance = self.instance
        return f"{instance.alias}.{instance.index}"

    def open_streams(self) -> None:
        pipes = PipeStream("stdout"), PipeStream("stderr")
        log = LogStream()
        self.streams = [*pipes, log]
        self.ends = [pipes[0].end, pipes[1].end, log.end]

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()
        for stream in self.streams:
            stream.close()
        self.streams.clear()
        for memory in self.memories.values():
            memory.close()
        self.memories.clear()

    def emit(self, lines: list[Line]) -> None:
        """Tell the owner what the round wrote."""
        self.tail.extend(text for _, _, text in lines)
        for stream, group in grouped(lines):
            event = Output(self.session.id, self.instance, stream, group)
            self.session.outbox.append(event)


@dataclass(eq=False)
class Session:
    """One runtime."""

    id: str
    owner: Ref
    token: str = field(default_factory=lambda: os.urandom(16).hex())
    rounds: dict[int, Round] = field(default_factory=dict)
    count: int = 0
    outbox: deque[Any] = field(default_factory=deque)
    stuck_since: float | None = None
    """When the owner began not to take events."""
    is_dead: bool = False
    """The owner had no incarnation at the last try."""
    is_ready: bool = False
    mode: str = ""
    why: str = ""
    streams: list[Stream] = field(default_factory=list)
    """What is printed outside rounds, by importing above all."""
    ends: list[int] = field(default_factory=list)
    early: deque[Line] = field(default_factory=lambda: deque(maxlen=_EARLY))
    pins: list[str] = field(default_factory=list)
    """Blobs of the latest round that ended."""
    waiting_since: float | None = None
    """When the runtime's connection was lost by a failure of ours."""

    def open_streams(self) -> None:
        pipes = PipeStream("stdout"), PipeStream("stderr")
        self.streams = [*pipes]
        self.ends = [pipe.end for pipe in pipes]

    def close_ends(self) -> None:
        for fd in self.ends:
            os.close(fd)
        self.ends.clear()

    @property
    def running(self) -> Round | None:
        """The round that what is printed now is attributed to: they run one after another."""
        return next((r for r in self.rounds.values() if not r.ended), None)

    def close(self) -> None:
        self.close_ends()
        for stream in self.streams:
            stream.close()
        self.streams.clear()
        for round_ in self.rounds.values():
            round_.close()
        self.rounds.clear()

    def deliver(self) -> bool:
        """Give the owner its events, in order; False where some are left."""
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


class Sessions:
    """Make one for a node's life, and hand it to each incarnation of its LightService.

    `folder` is where the socket lies, and is what a container mounts. Where its path is too
    long for a socket, a folder of the system's temporary one is used instead.
    """

    def __init__(self, depot: TieredDepot, folder: Path) -> None:
        self.depot = depot
        self.folder = _socket_folder(folder)
        self.by_id: dict[str, Session] = {}
        self.by_token: dict[str, Session | Round] = {}
        self.wake_up = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._inbox: deque[Callable[[Any], None]] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._leaving: set[Session] = set()

    @property
    def path(self) -> str:
        return str(self.folder / SOCKET)

    def open(self, id: str, owner: Ref) -> Session:
        """From any thread. A session that is open already gets a new owner."""
        with self._lock:
            session = self.by_id.get(id)
            if session is None:
                session = self.by_id[id] = Session(id, owner)
                self.by_token[session.token] = session
            session.owner = owner
            return session

    def post(self, job: Callable[[Any], None]) -> None:
        """Have the server do something on its thread; from any thread, also between servers."""
        self._inbox.append(job)
        self.wake()

    def wake(self) -> None:
        """Have the server look up; from any thread."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self.wake_up, 1)

    def tell(self, message: RunRound | CancelRound | CloseSession) -> None:
        """From any thread: what a server is to do, this one or the next."""
        match message:
            case RunRound() as order:
                self.post(lambda server: server.run_round(order))
            case CancelRound(id, instance, reason):
                self.post(lambda server: server.cancel_round(id, instance, reason))
            case CloseSession(id):
                session = self.forget(id)
                if session is not None:
                    self.post(lambda server: server.close_session(session))

    def jobs(self) -> Iterator[Callable[[Any], None]]:
        """What was posted, one by one, so that a failure loses only the job that failed."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.wake_up)
        while self._inbox:
            yield self._inbox.popleft()

    def add_round(self, session: Session, order: RunRound) -> Round:
        session.count += 1
        round_ = Round(session, session.count, order)
        round_.open_streams()
        session.rounds[round_.number] = round_
        self.by_token[round_.token] = round_
        return round_

    def remove_round(self, round_: Round) -> None:
        self.by_token.pop(round_.token, None)
        round_.session.rounds.pop(round_.number, None)
        round_.close()
        self.unpin(round_.session.pins)
        for channel in round_.channels.values():
            round_.session.pins += channel.pins

    def forget(self, id: str) -> Session | None:
        """From any thread: no more is asked of it, and nobody can join; still to be removed."""
        with self._lock:
            session = self.by_id.pop(id, None)
            if session is not None:
                self.by_token.pop(session.token, None)
                self._leaving.add(session)
            return session

    def remove(self, session: Session) -> None:
        """Close what is left of one that was forgotten."""
        self._leaving.discard(session)
        for round_ in list(session.rounds.values()):
            self.remove_round(round_)
        self.unpin(session.pins)
        session.close()

    def unpin(self, digests: list[str]) -> None:
        for digest in digests:
            with contextlib.suppress(BulkError):  # deleted meanwhile
                self.depot.unpin(digest)
        digests.clear()

    def close(self) -> None:
        """At the node's end, after the last LightService's."""
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
    """Make the folder: only those who know a socket's name may use it."""
    if len(os.fsencode(folder / SOCKET)) > LONGEST_PATH:
        import tempfile  # rarely needed, and dear to import

        name = blake2b(os.fsencode(folder.absolute()), digest_size=8).hexdigest()
        folder = Path(tempfile.gettempdir(), f"manta-{os.getuid()}-{name}")
    folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    found = folder.stat(follow_symlinks=False)
    if folder.is_symlink() or found.st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else: remove it.")
    folder.chmod(0o711)
    return folder
