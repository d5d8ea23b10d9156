"""Measures the link to the manager by heartbeats, and by extra questions on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manta.actors import Refused
from manta.node.link import quality as link_quality

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from manta.actors import Actor, Reply

TIMEOUT = 1.0
PATIENCE = 2.5
"""Seconds after which few measurements suffice."""


class LinkProbe:
    """`ask(timeout)` asks the manager for a small answer."""

    def __init__(self, actor: Actor, ask: Callable[[float], Future[Any]]) -> None:
        self._actor = actor
        self._ask = ask
        self.window = link_quality.LinkWindow()
        self._waiting: list[Reply] = []
        self._probing = 0
        self._since = 0.0

    def took(self, sent: float, error: BaseException | None) -> None:
        """A question that was sent at `sent` was answered, or failed with `error`."""
        now = self._actor.clock.now()
        answered = error is None or isinstance(error, Refused)
        self.window.asked(now - sent if answered else None, now)

    def read(self, reply: Reply) -> None:
        """Answers with the quality, 0 to 1, once there are enough measurements."""
        self._waiting.append(reply)
        if len(self._waiting) == 1:
            self._since = self._actor.clock.now()
            self._go_on()

    def lost(self) -> None:
        """The link is down: answers everybody who waits."""
        self._probing += 1
        self.window = link_quality.LinkWindow()
        self._answer(0.0)

    def _go_on(self) -> None:
        now = self._actor.clock.now()
        self.window.forget(now)
        patient = now - self._since < PATIENCE
        enough = link_quality.ENOUGH if patient else link_quality.FEWEST
        if len(self.window) >= enough:
            self._answer(self.window.quality())
            return
        probing = self._probing

        def answered(_: Any, error: BaseException | None) -> None:
            if probing == self._probing:
                self.took(now, error)
                self._go_on()

        self._actor.pipe(self._ask(TIMEOUT), answered)

    def _answer(self, quality: float) -> None:
        waiting, self._waiting = self._waiting, []
        for reply in waiting:
            reply.set(quality)
