"""How a peer leaves in good order: what others need of it they have, or hear of it, before."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from manta.mesh.peer.plane import PeerPlane

COMING = 3.0
"""Seconds that others have to come for what is theirs: to a call, or for a large value."""
HELD_BACK = 3.0
"""Seconds for what an experiment's faults hold back at the end."""
FIRST_LOOK, LONGEST_LOOK = 0.001, 0.05
"""Seconds until it is looked again, at first and at most."""

log = logging.getLogger("manta.mesh")


class Control(Protocol):
    def alive(self) -> dict[str, str]:
        """The names of all others that are, by their ids."""

    def leave(self) -> None:
        """Tells all others."""


class Leaving:
    def __init__(
        self, run: Callable[[Callable[[], Any]], Any], plane: PeerPlane, control: Control
    ) -> None:
        """`run` calls on the plane's thread, and returns what that gives."""
        self._run = run
        self._plane = plane
        self._control = control

    def leave(self, timeout: float) -> None:
        """Returns once all others have what is theirs and know that this peer leaves; after about
        so many seconds all the same."""
        until = time.monotonic() + timeout
        lacking = self._wait(until, coming=min(until, time.monotonic() + COMING))
        self._run(partial(self._plane.say_farewell, lacking.keys()))
        lacking |= self._wait(until, coming=0.0)
        if lacking:
            names = ", ".join(sorted(lacking.values())[:4])
            log.warning(
                "This peer leaves, after %g s, though others lack what is theirs: %s.",
                timeout,
                names,
            )
        self._run(self._control.leave)
        until = time.monotonic() + HELD_BACK
        self._until(lambda: not self._plane.links.hold_back, until)

    def _wait(self, until: float, *, coming: float) -> dict[str, str]:
        """Who lacks anything, at the latest then, by id and name."""
        found: dict[str, str] = {}

        def look() -> bool:
            nonlocal found
            lacking = self._plane.lacking(waits=time.monotonic() < coming)
            found = {id_: name for id_, name in self._control.alive().items() if id_ in lacking}
            return not found

        self._until(look, until)
        return found

    def _until(self, is_so: Callable[[], bool], until: float) -> None:
        pause = FIRST_LOOK
        while not self._run(is_so) and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_LOOK)
