"""What actors use of their system: it finds actors by path, and links to other processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from manta.actors.address import Address
from manta.actors.cell import Cell, LocalRef, current
from manta.actors.clock import Clock, SystemClock
from manta.actors.errors import ActorDead, NameTaken, Unreachable
from manta.actors.exits import ExitKind, ExitReason
from manta.actors.links import Acceptor, Connection
from manta.actors.mailbox import Deadlines
from manta.actors.specs import ChildInfo

if TYPE_CHECKING:
    from manta.transports.errors import DownReason
    from manta.transports.interface import Listener, Transport
    from manta.transports.security.admission import Admission


class TreeNode(msgspec.Struct, frozen=True):
    """One actor and those below it, at one moment."""

    address: Address
    actor_class: str
    waiting: int
    """Messages in its mailbox."""
    seconds: float
    """Since it was started."""
    info: ChildInfo | None
    """What its supervisor knows of it; None for a root."""
    children: tuple[TreeNode | ChildInfo, ...] = ()


class Registry:
    """The living actors of one system by path, and its links to other processes."""

    def __init__(
        self, name: str, *, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self.transport = transport
        self.deadlines = Deadlines(self.clock, f"{name}-deadlines")
        self._lock = threading.Lock()
        self._cells: dict[str, Cell] = {}
        self._roots: list[Cell] = []
        self._threads: list[Cell] = []  # every cell whose thread may still run
        self._stopping = False

    # --- actors of this process --------------------------------------------------------

    def find(self, path: str) -> LocalRef:
        """Returns the actor that lives at the path now; raises ActorDead if none does."""
        cell = self._cells.get(path)
        if cell is None:
            raise ActorDead(f"nobody lives at {self.name}:{path}")
        return cell.ref

    def ref(self, path: str) -> PathRef:
        """Returns a reference to whichever actor is at the path at the moment of each send."""
        return PathRef(self, Address(self.name, path))

    def tree(self) -> list[TreeNode]:
        """Returns the supervision trees as they stand. It asks no actor, so none delays it."""
        with self._lock:
            roots = list(self._roots)
        return [self._node(cell, None) for cell in roots if cell.exit_reason is None]

    def _node(self, cell: Cell, info: ChildInfo | None) -> TreeNode:
        below: list[TreeNode | ChildInfo] = []
        for child in cell.child_infos():
            living = self._cells.get(f"{cell.address.path}/{child.id}")
            below.append(child if living is None else self._node(living, child))
        seconds = self.clock.now() - cell.begun_at
        return TreeNode(
            cell.address, cell.actor_class, len(cell.inbox), seconds, info, tuple(below)
        )

    # --- called by the runtime --------------------------------------------------------------

    def register(self, cell: Cell) -> None:
        """Enters a new cell; raises NameTaken, or ActorDead for a root once the system stops."""
        path = cell.address.path
        with self._lock:
            if self._stopping and "/" not in path:
                raise ActorDead(f"the actor system {self.name} is stopping")
            if path in self._cells:
                raise NameTaken(
                    f"{self._cells[path].address} lives already: stop it, or take another id"
                )
            self._cells[path] = cell
            self._threads = [other for other in self._threads if other.may_run]
            self._threads.append(cell)

    def forget(self, cell: Cell) -> None:
        """Removes a cell that has ended."""
        with self._lock:
            if self._cells.get(cell.address.path) is cell:
                del self._cells[cell.address.path]
            if cell in self._roots:
                self._roots.remove(cell)

    def _cells_now(self) -> list[Cell]:
        with self._lock:
            return list(self._cells.values())

    # --- links to other processes ----------------------------------------------------------

    def listen(
        self,
        address: str,
        admission: Admission,
        *,
        fd: int | None = None,
        published: Collection[str],
    ) -> Listener:
        """Listens, and lets peers reach the published paths.

        Closed at the end of the actor that calls this. Raises Unreachable without a transport.
        """
        acceptor = Acceptor(self, frozenset(published), admission)
        listener = self._transport().listen(address, acceptor, admission, fd=fd)
        self._at_callers_end(listener.close)
        return listener

    def dial(
        self,
        address: str,
        server_key: str,
        *,
        on_state: Callable[[DownReason | None], None] | None = None,
        published: Collection[str] = (),
    ) -> Connection:
        """Opens a link to another process, which may reach the published paths.

        `on_state` is called on the I/O thread with None when the link is up, and with the
        reason when it is down; it should tell an actor and return. Closed at the end of the
        actor that calls this. Raises Unreachable without a transport.
        """
        connection = Connection(self, on_state, frozenset(published))
        connection.peer.link = self._transport().dial(address, server_key, connection)
        self._at_callers_end(connection.close)
        return connection

    def _transport(self) -> Transport:
        if self.transport is None:
            raise Unreachable(
                f"the actor system {self.name} has no transport: give it one to reach other "
                "processes"
            )
        return self.transport

    def _at_callers_end(self, close: Callable[[], object]) -> None:
        if current.cell is not None and current.cell.host is self:
            current.cell.own(close)


@dataclass(frozen=True, slots=True, repr=False)
class PathRef:
    """Whichever actor is at a path at the moment of each send, across restarts.

    A send between two incarnations raises ActorDead.
    """

    _registry: Registry
    address: Address

    def _find(self) -> LocalRef:
        return self._registry.find(self.address.path)

    def tell(self, message: Any) -> None:
        self._find().tell(message)

    def ask(self, message: Any, *, timeout: float) -> Any:
        return self._find().ask(message, timeout=timeout)

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]:
        try:
            ref = self._find()
        except ActorDead as error:
            future: Future[Any] = Future()
            future.set_exception(error)
            return future
        return ref.ask_future(message, timeout=timeout)

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """See Ref.watch; of who lives at the path now."""
        try:
            ref = self._find()
        except ActorDead as error:
            notify(ExitReason(ExitKind.UNKNOWN, str(error)))
            return lambda: None
        return ref.watch(notify)

    def __repr__(self) -> str:
        return f"<PathRef {self.address}>"
