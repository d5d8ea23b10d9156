"""What actors hold of each other: references, and the replies they owe."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Protocol

from manta.actors.address import ANY, Address
from manta.actors.errors import ActorDead, ActorError, AskTimeout, WouldDeadlock
from manta.actors.signals import SHUTDOWN, ExitReason, Stop

if TYPE_CHECKING:
    from manta.actors.mailbox import Mailbox, Timer
    from manta.actors.runtime import Cell
    from manta.actors.system import ActorSystem
    from manta.transports.interface import Link


class Reply:
    """The answer owed to one ask: the first `set` or `fail`, from any thread, is the one."""

    __slots__ = ("_open", "on_done")

    def __init__(self) -> None:
        self._open = [True]  # list.pop is atomic: whoever takes the item answers
        self.on_done: Callable[[Reply], None] | None = None

    @property
    def done(self) -> bool:
        return not self._open

    def set(self, value: Any = None) -> bool:
        """Answer; False when someone did before, or the asker gave up."""
        return self._resolve(value, None)

    def fail(self, error: BaseException) -> bool:
        """Answer with an error; False when someone did before, or the asker gave up."""
        return self._resolve(None, error)

    def _resolve(self, value: Any, error: BaseException | None) -> bool:
        try:
            self._open.pop()
        except IndexError:
            return False
        if self.on_done is not None:
            self.on_done(self)
        self._deliver(value, error)
        return True

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        raise NotImplementedError


class Slot(Reply):
    """For an asker that blocks: a bare lock is the cheapest thing to wait for."""

    __slots__ = ("_error", "_lock", "_value")

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: Any = None
        self._error: BaseException | None = None

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self._value = value
        self._error = error
        self._lock.release()

    def wait(self, timeout: float, address: Address) -> Any:
        if not self._lock.acquire(timeout=timeout):
            sentence = (
                f"{address} did not answer within {timeout:g} s; it may still do what it was "
                "asked to"
            )
            if not self.fail(AskTimeout(sentence)):
                self._lock.acquire()  # the answer is being put in place this very moment
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # no cycle through the traceback
        return self._value


class FutureReply(Reply):
    """For an asker that goes on with other things."""

    __slots__ = ("_timer", "future")

    def __init__(self) -> None:
        super().__init__()
        self.future: Future[Any] = Future()
        self._timer: Timer[Any] | None = None

    def expire(self, system: ActorSystem, timeout: float, address: Address) -> None:
        """Fail when the time is over, whatever the receiver is doing."""
        error = AskTimeout(f"{address} did not answer within {timeout:g} s")
        try:
            self._timer = system.deadlines.add(timeout, lambda: self.fail(error))
        except ActorDead as stopped:
            self.fail(stopped)
            return
        if self.done:
            self._timer.cancel()

    def end_with_future(self) -> None:
        """Nothing of it is kept once the asker cancels its future."""

        def given_up(future: Future[Any]) -> None:
            if future.cancelled():
                self.fail(CancelledError())

        self.future.add_done_callback(given_up)

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        timer = self._timer
        if timer is not None:
            timer.cancel()
        try:
            if error is None:
                self.future.set_result(value)
            else:
                self.future.set_exception(error)
        except InvalidStateError:
            pass  # the asker cancelled it: nobody waits


LONGEST = 1e7  # seconds


def valid_seconds(timeout: float) -> float:
    """The time that a message is given, checked: there is no such thing as for ever."""
    if not 0 <= timeout <= LONGEST:
        raise ValueError(f"A timeout is between 0 and {LONGEST:.0e} seconds, not {timeout!r}.")
    return timeout


class Envelope:
    """A message and what belongs to it."""

    __slots__ = ("deadline", "message", "origin", "reply")

    def __init__(
        self,
        message: Any,
        reply: Reply | None = None,
        origin: Origin | None = None,
        deadline: float | None = None,
    ) -> None:
        self.message = message
        self.reply = reply
        self.origin = origin
        self.deadline = deadline  # on the system's clock; None: as long as the asker waits


class Origin(Protocol):
    """Who sent the message that is being handled, when it came over a link."""

    @property
    def peer_key(self) -> str: ...

    @property
    def link(self) -> Link: ...

    @property
    def is_revoked(self) -> bool: ...

    def ref(self, path: str, incarnation: int = ANY) -> Ref:
        """An actor that the sender's process has published to us."""


class Ref(Protocol):
    """A way to one actor, near or far."""

    @property
    def address(self) -> Address: ...

    def tell(self, message: Any) -> None: ...

    def ask(self, message: Any, *, timeout: float) -> Any: ...

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]: ...

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        """Call `notify` once, at the actor's end or now; returns what calls that off."""


class _Current(threading.local):
    cell: Cell | None = None


current = _Current()  # the actor whose thread this is


def refuse_the_dead() -> None:
    """An abandoned actor's thread cannot be killed; this is where it learns that it is dead."""
    cell = current.cell
    if cell is not None and cell.abandoned:
        raise ActorDead(f"{cell.address} was abandoned: it did not stop in time, and may not send")


class LocalRef:
    """One incarnation of an actor in this process: never reaches a successor."""

    __slots__ = ("__weakref__", "_cell", "_inbox", "address")

    def __init__(self, cell: Cell) -> None:
        self.address = cell.address
        self._cell = cell
        self._inbox: Mailbox[Envelope] = cell.inbox

    def tell(self, message: Any) -> None:
        """Queue a message; raises MailboxFull or ActorDead."""
        refuse_the_dead()
        self._inbox.put(Envelope(message))

    def ask(self, message: Any, *, timeout: float) -> Any:
        """Queue a message and wait, in real time, for the answer; raises what went wrong."""
        asker = current.cell
        if asker is not None:
            refuse_the_dead()
            path = self.address.path
            if asker.address.path == path or asker.address.path.startswith(f"{path}/"):
                raise WouldDeadlock(
                    f"{asker.address} may not block on {self.address}, itself or its supervisor, "
                    "which may be waiting for it: tell it, or use ask_future"
                )
        valid_seconds(timeout)
        slot = Slot()
        self._inbox.put(Envelope(message, slot))
        return slot.wait(timeout, self.address)

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]:
        """Queue a message; every outcome, these errors included, is in the future."""
        valid_seconds(timeout)
        reply = FutureReply()
        try:
            refuse_the_dead()
            self._inbox.put(Envelope(message, reply))
        except ActorError as error:
            reply.fail(error)
        else:
            reply.expire(self._cell.system, timeout, self.address)
        return reply.future

    def watch(self, notify: Callable[[ExitReason], None]) -> Callable[[], None]:
        return self._cell.watch(notify)

    def stop(self, reason: ExitReason = SHUTDOWN) -> None:
        """Ask it to end, before all that waits in its mailbox; its supervisor may restart it."""
        try:
            self._inbox.put_urgent(Envelope(Stop(reason)))
        except ActorDead:
            return  # as wanted

    def wait(self, timeout: float | None = None) -> ExitReason | None:
        """Block until the actor's end, `timeout` real seconds at most; None if it lives on."""
        return self._cell.wait(timeout)

    @property
    def is_alive(self) -> bool:
        return self._cell.exit_reason is None

    @property
    def exit_reason(self) -> ExitReason | None:
        return self._cell.exit_reason

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalRef) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<LocalRef {self.address}>"


class PathRef:
    """Whoever lives at a path at the moment of each send: outlives restarts.

    Between two incarnations a send raises ActorDead; the sender decides whether to try again.
    """

    __slots__ = ("_system", "address")

    def __init__(self, system: ActorSystem, path: str) -> None:
        self._system = system
        self.address = Address(system.name, path)

    def _find(self) -> LocalRef:
        return self._system.find(self.address.path)

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
        return self._system.watch(self.address.path, notify)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PathRef)
            and other.address == self.address
            and other._system is self._system
        )

    def __hash__(self) -> int:
        return hash(self.address)

    def __repr__(self) -> str:
        return f"<PathRef {self.address}>"
