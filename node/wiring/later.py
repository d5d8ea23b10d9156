"""Futures, for actors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from manta.actors import Actor, ActorDead


@dataclass(frozen=True)
class Later:
    """To oneself: a future is done. Handle it with `message()`."""

    then: Callable[[Any, BaseException | None], None]
    value: Any
    error: BaseException | None

    def __call__(self) -> None:
        self.then(self.value, self.error)


def later(
    actor: Actor, future: Future[Any], then: Callable[[Any, BaseException | None], None]
) -> None:
    """Call `then(value, error)` in the actor's own thread when the future is done."""
    ref = actor.ref

    def done(future: Future[Any]) -> None:
        error = future.exception()
        try:
            ref.tell(Later(then, None if error else future.result(), error))
        except ActorDead:
            return  # whoever wanted to know is gone

    future.add_done_callback(done)
