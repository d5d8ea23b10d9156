"""The actor system: starts the roots of supervision trees, and stops everything."""

from __future__ import annotations

import logging
import threading
import time

from manta.actors.address import Address
from manta.actors.cell import LocalRef, current
from manta.actors.errors import StartFailed, WouldDeadlock
from manta.actors.exits import SHUTDOWN
from manta.actors.registry import Registry
from manta.actors.runtime import prepare
from manta.actors.signals import ChildExited, ChildStarted
from manta.actors.specs import ChildSpec

log = logging.getLogger("manta.actors")

START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


class ActorSystem(Registry):
    """Supervision trees with one clock and one transport, which `stop` closes."""

    def spawn(self, spec: ChildSpec, *, timeout: float = START_TIMEOUT) -> LocalRef:
        """Starts a root and blocks until it runs, `timeout` real seconds at most.

        Raises StartFailed, NameTaken, or ActorDead once the system stops.
        """
        settled = threading.Event()

        def heard(news: ChildStarted | ChildExited) -> None:
            settled.set()
            if isinstance(news, ChildExited):  # final: a root is not restarted
                level = logging.DEBUG if news.reason.is_normal else logging.ERROR
                log.log(level, "%s", news, exc_info=news.reason.error)

        cell = prepare(self, spec, spec.id, heard)
        with self._lock:
            self._roots.append(cell)
        cell.launch()
        if not settled.wait(timeout):
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
