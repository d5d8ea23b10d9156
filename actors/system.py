"""All actors of one process that know each other."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from manta.actors.address import Address, next_incarnation
from manta.actors.clock import Clock, SystemClock
from manta.actors.deadlines import Deadlines
from manta.actors.errors import ActorDead, NameTaken, StartFailed, WouldDeadlock
from manta.actors.refs import LocalRef, PathRef, current
from manta.actors.runtime import Cell, Closeable
from manta.actors.signals import (
    SHUTDOWN,
    ChildExited,
    ChildStarted,
    ExitKind,
    ExitReason,
)
from manta.actors.specs import ChildSpec
from manta.actors.supervisor import ChildInfo, Supervisor

if TYPE_CHECKING:
    from manta.actors.links import Connection
    from manta.transports.errors import DownReason
    from manta.transports.interface import Listener, Transport
    from manta.transports.security.admission import Admission

log = logging.getLogger("manta.actors")

C = TypeVar("C", bound=Closeable)

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


class TreeNode(msgspec.Struct, frozen=True):
    """One actor, and what hangs below it, at one moment."""

    address: Address
    actor_class: str
    waiting: int
    seconds: float
    info: ChildInfo | None
    children: tuple[TreeNode | ChildInfo, ...] = ()


class _Root:
    """The system as the parent of a root: nobody restarts those."""

    def __init__(self) -> None:
        self.settled = threading.Event()

    def child_started(self, event: ChildStarted) -> None:
        self.settled.set()

    def child_exited(self, event: ChildExited) -> None:
        self.settled.set()
        level = logging.DEBUG if event.reason.is_normal else logging.ERROR
        log.log(level, "%s", event, exc_info=event.reason.error)


class ActorSystem:
    """A registry of paths, the roots of the trees, and the way to other processes.

    It owns the transport that it was given: `stop` closes it.
    """

    def __init__(
        self, name: str, *, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        self.name = name
        self.clock = clock or SystemClock()
        self.transport = transport
        self.deadlines = Deadlines(self.clock, f"{name}-deadlines")
        self._lock = threading.Lock()
        self._cells: dict[str, Cell] = {}
        self._roots: list[Cell] = []
        self._threads: list[Cell] = []  # every cell whose thread may still run
        self._stopping = False

    # --- actors ------------------------------------------------------------------------

    def spawn(self, spec: ChildSpec, *, timeout: float = START_TIMEOUT) -> LocalRef:
        """Start a root and wait until it runs; raises StartFailed or NameTaken."""
        parent = _Root()
        cell = self._prepare(spec, spec.id, parent)
        with self._lock:
            self._roots.append(cell)
        cell.launch()
        if not parent.settled.wait(timeout):
            cell.end(SHUTDOWN, 0.0)
            raise StartFailed(f"{cell.address} did not start within {timeout:g} s")
        if not cell.started and cell.exit_reason is not None:
            reason = cell.exit_reason
            raise StartFailed(f"{cell.address} failed to start: {reason}") from reason.error
        return cell.ref

    def find(self, path: str) -> LocalRef:
        """Who lives at the path now; raises ActorDead if nobody does."""
        cell = self._cells.get(path)
        if cell is None:
            raise ActorDead(f"nobody lives at {self.name}:{path}")
        return cell.ref

    def ref(self, path: str) -> PathRef:
        """Whoever lives at the path at the moment of each send."""
        return PathRef(self, path)

    def watch(self, path: str, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Call `notify` once, at the end of who lives at the path now; returns what undoes it."""
        cell = self._cells.get(path)
        if cell is None:
            sentence = f"nobody lives at {self.name}:{path}"
            notify(ExitReason(ExitKind.UNKNOWN, sentence))
            return lambda: None
        return cell.watch(notify)

    def tree(self) -> list[TreeNode]:
        """The supervision trees as they stand; asks nobody, so a busy actor does not delay it."""
        with self._lock:
            roots = list(self._roots)
        return [self._node(cell, None) for cell in roots if cell.exit_reason is None]

    def _node(self, cell: Cell, info: ChildInfo | None) -> TreeNode:
        actor = cell.actor
        below: list[TreeNode | ChildInfo] = []
        if isinstance(actor, Supervisor):
            for child in actor._infos():
                living = self._cells.get(f"{cell.address.path}/{child.id}")
                below.append(child if living is None else self._node(living, child))
        seconds = self.clock.now() - cell.begun_at
        return TreeNode(
            cell.address, cell.actor_class, len(cell.inbox), seconds, info, tuple(below)
        )

    # --- the runtime's side ----------------------------------------------------------------

    def _prepare(self, spec: ChildSpec, path: str, parent: Any) -> Cell:
        """A registered cell that does not run yet: it can be sent to."""
        cell = Cell(self, spec, Address(self.name, path, next_incarnation()), parent)
        with self._lock:
            if self._stopping and "/" not in path:
                raise ActorDead(f"the actor system {self.name} is stopping")
            if path in self._cells:
                raise NameTaken(
                    f"{self._cells[path].address} lives already: stop it, or take another id"
                )
            self._cells[path] = cell
            self._threads = [other for other in self._threads if _may_run(other)]
            self._threads.append(cell)
        return cell

    def _forget(self, cell: Cell) -> None:
        with self._lock:
            if self._cells.get(cell.address.path) is cell:
                del self._cells[cell.address.path]
            if cell in self._roots:
                self._roots.remove(cell)

    def _cells_now(self) -> list[Cell]:
        with self._lock:
            return list(self._cells.values())

    # --- the way out -------------------------------------------------------------------------

    def listen(
        self,
        address: str,
        admission: Admission,
        *,
        fd: int | None = None,
        published: Collection[str],
    ) -> Listener:
        """Let peers reach the published paths; closed at the end of the actor that calls this."""
        from manta.actors.links import listen

        return self._owned(listen(self, address, admission, fd, frozenset(published)))

    def dial(
        self,
        address: str,
        server_key: str,
        *,
        on_state: Callable[[DownReason | None], None] | None = None,
        published: Collection[str] = (),
    ) -> Connection:
        """Open a link to another process; closed at the end of the actor that calls this.

        `on_state` is called with None when the link is up, else with why it is
        not, on the I/O thread: let it tell an actor and return.
        """
        from manta.actors.links import dial

        return self._owned(dial(self, address, server_key, on_state, frozenset(published)))

    def _owned(self, closeable: C) -> C:
        if current.cell is not None and current.cell.system is self:
            current.cell.own(closeable)
        return closeable

    def stop(self, timeout: float = STOP_TIMEOUT) -> list[Address]:
        """Stop the roots, last first, then the transport; returns whom it had to abandon."""
        if current.cell is not None and current.cell.system is self:
            raise WouldDeadlock(f"{current.cell.address} cannot stop the system that it lives in")
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
            roots = list(self._roots)
        for cell in reversed(roots):
            cell.end(SHUTDOWN, max(0.0, deadline - time.monotonic()))
        orphans = self._cells_now()  # children of a supervisor that had to be abandoned
        for cell in orphans:
            cell.ref.stop()
        for cell in orphans:
            cell.end(SHUTDOWN, max(0.0, deadline - time.monotonic()))
        self.deadlines.close()
        if self.transport is not None:
            self.transport.close()
        with self._lock:
            cells = [cell for cell in self._threads if _may_run(cell)]
        for cell in cells:
            if cell.thread is not None and cell.thread is not threading.current_thread():
                # An ended actor's thread needs a moment to unwind; an abandoned one may never.
                cell.thread.join(0.0 if cell.abandoned else 1.0)
        return [cell.address for cell in cells if cell.abandoned]

    def __enter__(self) -> ActorSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _may_run(cell: Cell) -> bool:
    if cell.thread is None:
        return cell.exit_reason is None
    return cell.thread.is_alive()
