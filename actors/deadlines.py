"""Ends the waits of asks by future, which no thread blocks on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from manta.actors.clock import Clock
from manta.actors.errors import ActorDead
from manta.actors.mailbox import Mailbox, Timer


class Deadlines:
    """Calls short functions when their time has come by the system's clock.

    One thread per system does so; it starts with the first call of `add`.
    """

    def __init__(self, clock: Clock, name: str) -> None:
        self._clock = clock
        self._name = name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.inbox: Mailbox[Callable[[], Any]] = Mailbox(clock)

    def add(self, seconds: float, expire: Callable[[], Any]) -> Timer[Any]:
        """Calls `expire` after `seconds`, unless the timer is cancelled.

        Raises ActorDead once the system has stopped.
        """
        timer = self.inbox.schedule(self._clock.now() + seconds, expire)
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    self._thread = threading.Thread(
                        target=self._serve, name=self._name, daemon=True
                    )
                    self._thread.start()
        return timer

    @property
    def running(self) -> bool:
        return self._thread is not None

    def _serve(self) -> None:
        while True:
            try:
                expire = self.inbox.get()
            except ActorDead:
                return
            expire()

    def close(self) -> None:
        self.inbox.close("the actor system has stopped")
        if self._thread is not None:
            self._thread.join()
