"""What an actor is to who writes one."""

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
    """Puts the actor's path before what it logs."""

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return f"{self.extra['actor']}: {msg}" if self.extra else msg, kwargs


class Actor:
    """One thread, one mailbox, one message at a time. Subclass it and write `receive`.

    The constructor runs in the actor's thread too, before `ref`, `system`,
    `clock` and `log` are there. `on_stop` is called whenever `on_start` had
    returned, after a crash as well.
    """

    accepts: ClassVar[Any] = None
    """The closed union of Structs that a remote peer may send; None: no remote peer may."""
    mailbox: ClassVar[MailboxPolicy] = MailboxPolicy()

    ref: LocalRef
    system: Registry
    clock: Clock
    log: ActorLog
    _cell: Cell

    def on_start(self) -> None:
        """Acquire what the actor needs; it counts as started when this returns."""

    def on_stop(self, reason: ExitReason) -> None:
        """Release it; nothing is received any more."""

    def receive(self, message: Any) -> Any:
        """Handle one message; what it returns answers an ask."""
        raise InvalidMessage(f"{type(self).__name__} does not handle {type(message).__name__}.")

    def after(self, delay: float, message: Any) -> Timer[Any]:
        """Send `message` to this actor `delay` seconds from now."""
        return self._cell.inbox.schedule(self.clock.now() + delay, Envelope(message))

    def notify(self, target: Ref | str, message: Any) -> bool:
        """Tell the actor at a reference or path, where it is no error that nobody takes it.

        False, with a line in the debug log, when it is dead, full or out of reach. May be called
        from any thread.
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
        """Call `then(value, error)` in this actor's thread when the future is done.

        With `reply`, a deferred one, `then(value)` is called for a result only. What the future
        raised counts as raised in a handler, as does what `then` raises: Refused fails the
        reply, or is logged where there is none; anything else crashes the actor.

        The outcome waits in the mailbox in its turn, like a message that no origin has. It is
        queued even in a full mailbox, because nobody is there to send it again: the futures
        that an actor waits for at one time are its own to bound. It is dropped only when the
        actor has ended.
        """
        cell = self._cell
        future.add_done_callback(
            lambda future: cell.post(FutureDone(future, then, reply), urgent=False)
        )

    def monitor(self, ref: Ref) -> Monitor:
        """Have one Down(ref, reason) arrive when the actor ends, or ended already."""
        monitor, cell = Monitor(ref), self._cell
        # In turn: what it said before it died is heard before.
        monitor._cancel = ref.watch(
            lambda reason: cell.post(DownSignal(monitor, reason), urgent=False)
        )
        return monitor

    def link(self, ref: LocalRef) -> None:
        """Share its fate: whichever of the two ends first, unless normally, takes the other along.

        Only within a process: a peer must not be able to end our actors. Monitor it instead.
        """
        self._cell.link(ref)

    def unlink(self, ref: LocalRef) -> None:
        """Share it no more."""
        self._cell.unlink(ref)

    def defer(self) -> Reply:
        """Take the answer to the current message upon oneself: what `receive` returns is ignored.

        Should the actor end first, the asker is told so.
        """
        return self._cell.defer()

    def stop(self, reason: ExitReason = NORMAL) -> NoReturn:
        """End now: the rest of the handler is not executed."""
        raise ActorExit(reason)

    @property
    def origin(self) -> Origin | None:
        """Who sent the current message, if it came over a link."""
        return self._cell.origin

    # --- how the runtime drives an actor; a Supervisor does these its own way -----------

    def _started(self) -> None:
        self._cell.announce_start()

    def _handle(self, message: Any) -> Any:
        return self.receive(message)

    def _stop_asked(self, reason: ExitReason) -> None:
        raise ActorExit(reason)

    def _parental(self, event: Any) -> None:
        raise TypeError(f"{type(self).__name__} is no supervisor, yet heard of a child: {event!r}")

    def _child_infos(self) -> Sequence[ChildInfo]:
        return ()
