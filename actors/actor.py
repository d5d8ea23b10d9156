"""The base class of actors."""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping, Sequence
from concurrent.futures import Future
from typing import Any, ClassVar, NoReturn, TypeVar, overload

from manta.actors.cell import Cell, LocalRef
from manta.actors.clock import Clock
from manta.actors.errors import ActorDead, InvalidMessage, MailboxFull, Unreachable
from manta.actors.exits import NORMAL, ActorExit, ExitReason
from manta.actors.mailbox import MailboxPolicy, Timer
from manta.actors.refs import Envelope, Origin, Ref
from manta.actors.registry import Registry
from manta.actors.replies import Reply
from manta.actors.signals import DownSignal, FutureDone, Monitor
from manta.actors.specs import ChildInfo

T = TypeVar("T")


class ActorLog(logging.LoggerAdapter[logging.Logger]):
    """Puts the actor's path in front of what it logs."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{self.extra['actor']}: {msg}" if self.extra else msg, kwargs


class Actor:
    """Handles one message at a time, in a thread of its own. Subclass it and write `receive`.

    The constructor runs in the actor's thread too, before `ref`, `system`,
    `clock` and `log` are set. `on_stop` is called after a crash as well, but
    only if `on_start` had returned.
    """

    accepts: ClassVar[Any] = None
    """The closed union of Structs that remote peers may send; None: they may send nothing."""
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()

    ref: LocalRef
    system: Registry
    clock: Clock
    log: ActorLog
    _cell: Cell

    def on_start(self) -> None:
        """Acquires what the actor needs; the actor has started when this returns."""

    def on_stop(self, reason: ExitReason) -> None:
        """Releases what the actor holds; nothing is received any more."""

    def receive(self, message: Any) -> Any:
        """Handles one message; what it returns answers an ask."""
        raise InvalidMessage(f"{type(self).__name__} does not handle {type(message).__name__}.")

    def after(self, delay: float, message: Any) -> Timer[Any]:
        """Sends `message` to this actor after `delay` seconds of the system's clock."""
        return self._cell.inbox.schedule(self.clock.now() + delay, Envelope(message))

    def notify(self, target: Ref | str, message: Any) -> bool:
        """Tells the actor at a reference or path; that it does not get there is not an error.

        Returns False, and leaves a line in the debug log, when that actor is dead, its mailbox
        full, or its process out of reach. May be called from any thread.
        """
        try:
            ref = self.system.find(target) if isinstance(target, str) else target
            ref.tell(message)
        except (ActorDead, MailboxFull, Unreachable) as error:
            self.log.debug("%s was not delivered: %s", type(message).__name__, error)
            return False
        return True

    @overload
    def pipe(
        self, future: Future[T], then: Callable[[T | None, BaseException | None], object]
    ) -> None: ...

    @overload
    def pipe(self, future: Future[T], then: Callable[[T], object], *, reply: Reply) -> None: ...

    def pipe(
        self, future: Future[Any], then: Callable[..., object], *, reply: Reply | None = None
    ) -> None:
        """Calls `then(value, error)` in this actor's thread when the future is done.

        With `reply`, which the actor has deferred, only a result is passed on, to `then(value)`,
        and an error of the future is raised in the actor. What is raised here or by `then` has
        the effect that it has in `receive`: Refused fails the reply, or is logged where there is
        none; anything else crashes the actor.

        The outcome waits in the mailbox in its turn, like a message of this process. It is
        queued even when the mailbox is full, since nobody would send it again: an actor bounds
        the futures that it waits for itself. It is dropped only when the actor has ended.
        """
        cell = self._cell
        future.add_done_callback(
            lambda future: cell.post(FutureDone(future, then, reply), urgent=False)
        )

    def monitor(self, ref: Ref) -> Monitor:
        """Has one Down(ref, reason) arrive when that actor ends, or at once if it has."""
        monitor, cell = Monitor(ref), self._cell
        # In turn: what it said before it died is heard before.
        unwatch = ref.watch(lambda reason: cell.post(DownSignal(monitor, reason), urgent=False))
        disown = cell.own(unwatch)  # or what lives longer would keep all that this actor was

        def cancel() -> None:
            disown()
            unwatch()

        monitor._cancel = cancel
        return monitor

    def link(self, ref: LocalRef) -> None:
        """Links the two actors: when one ends, unless NORMAL, the other ends too.

        Links are local, because a peer must not be able to end actors here. Remote actors can
        be monitored.
        """
        self._cell.link(ref)

    def unlink(self, ref: LocalRef) -> None:
        """Undoes `link`."""
        self._cell.unlink(ref)

    def defer(self) -> Reply:
        """Returns the Reply to the current message, to be answered later, from any thread.

        What `receive` returns is then ignored. If the actor ends first, the asker is told.
        """
        return self._cell.defer()

    def stop(self, reason: ExitReason = NORMAL) -> NoReturn:
        """Ends the actor now: the rest of the handler is not executed."""
        raise ActorExit(reason)

    @property
    def origin(self) -> Origin | None:
        """The peer that sent the current message, if it came over a link."""
        return self._cell.origin

    # --- called by the runtime; a Supervisor overrides these ----------------------------

    def _started(self) -> None:
        self._cell.announce_start()

    def _handle(self, message: Any) -> Any:
        return self.receive(message)

    def _on_stop_requested(self, reason: ExitReason) -> None:
        raise ActorExit(reason)

    def _on_supervisor_event(self, event: Any) -> None:
        raise TypeError(f"{type(self).__name__} is no supervisor, yet heard of a child: {event!r}")

    def _child_infos(self) -> Sequence[ChildInfo]:
        return ()
