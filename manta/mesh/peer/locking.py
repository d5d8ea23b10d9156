"""Locks that your process wants or has, by the machine that says who has them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from manta.mesh import locks
from manta.mesh.said import Locking
from manta.mesh.views import View
from manta.mesh.words import MOST_LOCKS

Answer = Callable[[dict[str, Any]], None]
Fail = Callable[[str, str], None]


@dataclass
class Waiter:
    """A request that is answered when the view is large enough, or a lock is had."""

    answer: Answer
    fail: Fail
    size: int
    timeout: float
    until: float


class Others(Protocol):
    """The other peers, as the control knows them."""

    def say_to(self, id_: str, message: Locking) -> None: ...

    def alias(self, id_: str) -> str | None: ...


class LockDesk:
    """`changed` is called when `due` may be another time."""

    def __init__(self, me: str, view: View, others: Others, changed: Callable[[], None]) -> None:
        self._locks = locks.Locks(me, view)
        self._others = others
        self._changed = changed
        self._waits: dict[str, Waiter] = {}

    def lock(self, name: str, timeout: float, answer: Answer, fail: Fail) -> None:
        if len(self._waits) >= MOST_LOCKS:
            fail("ResourceExhaustionError", f"{MOST_LOCKS:,} locks are waited for: use fewer.")
            return
        self._waits[name] = Waiter(answer, fail, 0, timeout, time.monotonic() + timeout)
        self._perform(self._locks.want(name))

    def unlock(self, name: str) -> None:
        if (waiter := self._waits.pop(name, None)) is not None:
            waiter.fail("RequestFailed", f"The lock {name!r} is not wanted any more.")
        self._perform(self._locks.drop(name))

    def heard(self, id_: str, message: Locking) -> None:
        self._perform(self._locks.heard(id_, message))

    def committed(self, view: View) -> None:
        self._perform(self._locks.committed(view))

    def _perform(self, actions: Iterable[locks.Action]) -> None:
        for action in actions:
            if isinstance(action, locks.Tell):
                self._others.say_to(action.peer, action.message)
            elif (waiter := self._waits.pop(action.name, None)) is not None:
                waiter.answer({})
        self._changed()

    @property
    def due(self) -> float | None:
        return min((one.until for one in self._waits.values()), default=None)

    def tick(self) -> None:
        now = time.monotonic()
        for name in [name for name, one in self._waits.items() if one.until <= now]:
            holder = self._others.alias(self._locks.holders.get(name, ""))
            whose = (
                f"the lock {name!r} is held by {holder}"
                if holder
                else (
                    f"it is not known yet who has the lock {name!r}: members of the view have not "
                    "said so"
                )
            )
            waiter = self._waits.pop(name)
            waiter.fail("Timeout", f"Waited {waiter.timeout:g} s in vain: {whose}.")
