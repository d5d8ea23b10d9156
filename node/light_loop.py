"""A thread around a selector, which does what others post to it and nothing of its own."""

from __future__ import annotations

import contextlib
import selectors
import threading
from collections.abc import Callable
from typing import Any

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

Handler = Callable[[int], None]


class SelectorThread:
    """Calls handlers with what their sources are ready for, and `tick` after each turn.

    All but `start` and `ask_to_stop` is for the thread itself.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], None],
        tick: Callable[[], float | None],
        finish: Callable[[], None],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._begin = begin
        self._tick = tick
        self._finish = finish
        self._on_failure = on_failure
        self._selector = selectors.DefaultSelector()
        self._sources: set[Any] = set()
        self.is_stopping = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, wake: Callable[[], None]) -> None:
        """From another thread: end after this turn, and wait for it."""
        self.is_stopping = True
        wake()
        self._thread.join()

    def register(self, source: Any, handler: Handler) -> None:
        self._selector.register(source, READ, handler)
        self._sources.add(source)

    def unregister(self, source: Any) -> None:
        """Idempotent; before the source is closed."""
        if source in self._sources:
            self._sources.remove(source)
            self._selector.unregister(source)

    def want_write(self, source: Any, wanted: bool) -> None:
        if source in self._sources:
            handler = self._selector.get_key(source).data
            self._selector.modify(source, READ | WRITE if wanted else READ, handler)

    def __contains__(self, source: object) -> bool:
        return source in self._sources

    def _main(self) -> None:
        try:
            self._begin()
            patience = self._tick()
            while not self.is_stopping:
                for key, ready in self._selector.select(patience):
                    if key.fileobj in self._sources:  # an earlier handler may have dropped it
                        key.data(ready)
                patience = self._tick()
        except BaseException as error:
            self._on_failure(error)
        finally:
            with contextlib.closing(self._selector):
                self._finish()
