"""The actor system: starts the roots of supervision trees, and stops everything."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from manta.actors.address import Address
from manta.actors.cell import LocalRef, current
from manta.actors.clock import Clock, SystemClock
from manta.actors.errors import StartFailed, WouldDeadlock
from manta.actors.exits import SHUTDOWN
from manta.actors.registry import Registry
from manta.actors.runtime import prepare
from manta.actors.signals import ChildExited, ChildStarted
from manta.actors.specs import ChildSpec

if TYPE_CHECKING:
    from manta.transports.interface import Transport

log = logging.getLogger("manta.actors")

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


class _Root:
    """The parent of a root, which nobody restarts."""

    def __init__(self) -> None:
        self.settled = threading.Event()

    def child_started(self, event: ChildStarted) -> None:
        self.settled.set()

    def child_exited(self, event: ChildExited) -> None:
        self.settled.set()
        level = logging.DEBUG if event.reason.is_normal else logging.ERROR
        log.log(level, "%s", event, exc_info=event.reason.error)


class ActorSystem(Registry):
    """Supervision trees with one clock and one transport, which `stop` closes."""

    def __init__(
        self, name: str, *, clock: Clock | None = None, transport: Transport | None = None
    ) -> None:
        super().__init__(name, clock or SystemClock(), transport)

    def spawn(self, spec: ChildSpec, *, timeout: float = START_TIMEOUT) -> LocalRef:
        """Starts a root and blocks until it runs, `timeout` real seconds at most.

        Raises StartFailed, NameTaken, or ActorDead once the system stops.
        """
        parent = _Root()
        cell = prepare(self, spec, spec.id, parent)
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

    def stop(self, timeout: float = STOP_TIMEOUT) -> list[Address]:
        """Stops the roots, last first, then closes the transport.

        Actors that do not end within `timeout` real seconds are abandoned; returns their
        addresses.
        """
        if current.cell is not None and current.cell.host is self:
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
            cells = [cell for cell in self._threads if cell.may_run]
        for cell in cells:
            if cell.thread is not None and cell.thread is not threading.current_thread():
                # An ended actor's thread needs a moment; an abandoned one's may run for ever.
                cell.thread.join(0.0 if cell.abandoned else 1.0)
        return [cell.address for cell in cells if cell.abandoned]

    def __enter__(self) -> ActorSystem:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
