"""What the node tells its manager of itself: all when it registers, later what has changed.

Its siblings are asked anew about once a minute, less often where they take long to answer, and
what they say goes with the next heartbeat if it is news.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from manta.node.capabilities.datasets import SurveyDatasets
from manta.node.capabilities.metrics import Describe
from manta.node.shared.addresses import DATASETS, METRICS
from manta.protocol.node import Capabilities

if TYPE_CHECKING:
    from manta.actors import Actor

ASK_TIMEOUT = 30.0
EVERY, PAUSES = 60.0, 20.0
"""Seconds between two looks, and how many times as long as one takes at least."""


class SelfDescription:
    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._found: Capabilities | None = None
        self._told: Capabilities | None = None
        self._is_asking = False
        self._due = 0.0

    def find(self, then: Callable[[Capabilities | None], None]) -> None:
        """Calls with what the node has; with None where that cannot be found out."""
        found: dict[str, Any] = {}
        questions = {METRICS: Describe(), DATASETS: SurveyDatasets()}
        began = self._actor.clock.now()

        def answered(path: str, value: Any, error: BaseException | None) -> None:
            if error is not None:
                self._actor.log.warning("%s did not answer: %s", path, error)
            found[path] = value if error is None else None
            if len(found) < len(questions):
                return
            now = self._actor.clock.now()
            self._due = now + max(EVERY, PAUSES * (now - began))
            if None in found.values():
                then(None)
                return
            self._found = msgspec.structs.replace(found[METRICS], datasets=found[DATASETS])
            then(self._found)

        for path, question in questions.items():
            future = self._actor.system.ref(path).ask_future(question, timeout=ASK_TIMEOUT)
            self._actor.pipe(future, partial(answered, path))

    def look(self) -> None:
        """Asks again, if it is time."""
        if self._is_asking or self._actor.clock.now() < self._due:
            return
        self._is_asking = True

        def done(_: Capabilities | None) -> None:
            self._is_asking = False

        self.find(done)

    @property
    def news(self) -> Capabilities | None:
        """What the manager has not heard."""
        return None if self._found == self._told else self._found

    def heard(self, told: Capabilities | None) -> None:
        """The manager has; None: it was told nothing."""
        self._told = self._told if told is None else told
