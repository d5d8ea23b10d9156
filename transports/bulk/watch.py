"""A thread that watches over connections while the thread of the sockets is held up.

That one writes and syncs blobs, which a slow disk draws out for seconds. Meanwhile libzmq goes on
reading: somebody has to end who sends without an end.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from manta.transports.zeromq.connections import LOOK

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.transports.bulk.loop import BulkLoop

HELD_UP = 0.1  # seconds that a turn of the loop takes before this looks

_log = logging.getLogger(__name__)


class Watch:
    """`start` it once."""

    def __init__(self, loop: BulkLoop, look: Callable[[], object]) -> None:
        self._loop = loop
        self._look = look
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manta-bulk-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Idempotent."""
        self._stopped.set()
        self._loop.working.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        loop, stopped = self._loop, self._stopped
        while not stopped.is_set():
            loop.working.wait()
            turn = loop.turn
            stopped.wait(HELD_UP)
            while loop.turn == turn and loop.working.is_set() and not stopped.is_set():
                try:
                    self._look()
                except Exception:  # the next look may succeed
                    _log.exception("a look at the connections of the bulk plane failed")
                stopped.wait(LOOK)
