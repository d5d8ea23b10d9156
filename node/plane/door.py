"""Tells when somebody connects at a listening socket, whom nobody accepts yet."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable


class Door:
    """`knocked` is called once, on a thread of this object's. The descriptor stays its owner's.
    Raises OSError, RuntimeError."""

    def __init__(self, listening: int, knocked: Callable[[], object]) -> None:
        self._listening = listening
        self._knocked = knocked
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._wait, name="manta-plane-door", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there are too many
            os.close(self._wake)
            raise

    def close(self) -> None:
        os.eventfd_write(self._wake, 1)
        self._thread.join()
        os.close(self._wake)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._listening, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self._wake not in dict(poll.poll()):
            self._knocked()
