"""The plane's process, as the daemon has it: begun, told orders, heard and ended.

Whatever is to be told waits in a queue of its own, since the plane may be busy and no actor may
wait for it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from manta.light.wire import BrokenFrame
from manta.node.plane.orders import OrderSocket, Serve, ToDaemon, ToPlane, pair

MOST = 20_000
"""Orders that may wait for a plane that is busy."""
ENDING = 5.0
"""Seconds that it has to end, before it is killed."""


class PlaneGone(Exception):
    """The plane has ended, or takes no orders."""


class PlaneProcess:
    """`hear` is called with each order of the plane, and `gone` once with how it ended, both on a
    thread of this object's. Raises OSError."""

    def __init__(
        self,
        serve: Serve,
        listening: Sequence[int],
        hear: Callable[[ToDaemon], None],
        gone: Callable[[str], None],
    ) -> None:
        self._hear = hear
        self._gone = gone
        with contextlib.ExitStack() as undo:
            handed: list[int] = []
            undo.callback(_close, handed)
            handed += map(os.dup, listening)
            ours, theirs = pair()
            self._orders: OrderSocket[ToDaemon] = OrderSocket(ours, ToDaemon)
            undo.callback(self._orders.close)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "manta.node.plane", str(theirs)],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs],
                    start_new_session=True,
                )
            finally:
                os.close(theirs)
            undo.callback(self._kill)
            self._queue: queue.SimpleQueue[tuple[ToPlane, Sequence[int]] | None] = (
                queue.SimpleQueue()
            )
            self._threads = [
                threading.Thread(target=self._write, name="manta-plane-orders", daemon=True),
                threading.Thread(target=self._read, name="manta-plane-answers", daemon=True),
            ]
            undo.callback(self._join)
            for thread in self._threads:
                thread.start()
            self.send(serve, handed)
            undo.pop_all()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, order: ToPlane, fds: Sequence[int] = ()) -> None:
        """Takes over the descriptors. Raises PlaneGone."""
        if self._queue.qsize() >= MOST:
            _close(fds)
            raise PlaneGone(f"the plane has left {MOST:,} orders unread")
        self._queue.put((order, fds))

    def close(self) -> None:
        """Ends the process, and waits for that."""
        with contextlib.suppress(OSError):  # it has ended already
            self._orders.socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(ENDING)
        except subprocess.TimeoutExpired:
            self._kill()
        self._join()
        while not self._queue.empty():
            _close((self._queue.get() or (None, ()))[1])
        self._orders.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _join(self) -> None:
        self._queue.put(None)
        for thread in self._threads:
            if thread.ident is not None:  # it was begun
                thread.join()

    def _write(self) -> None:
        while (item := self._queue.get()) is not None:
            order, fds = item
            try:
                self._orders.send(order, fds)
            except OSError:  # reading finds out as well
                continue
            finally:
                _close(fds)

    def _read(self) -> None:
        how = "closed its connection"
        try:
            while True:
                self._orders.read()
                while (found := self._orders.next()) is not None:
                    self._hear(found[0])
        except (EOFError, OSError):
            pass
        except BrokenFrame as error:
            how = f"said what it must not: {error}"
        self._gone(how)


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
