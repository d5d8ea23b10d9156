"""Requests that wait until there is something to say, or their time is over."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from manta.actors import Actor, Reply, Timer

K = TypeVar("K", bound=Hashable)


@dataclass(eq=False)
class Poll(Generic[K]):
    """One request that waits.

    `answer(last)` is called each time there may be something to say, and with `last` when the
    time is over. It returns whether the poll is done with; with `last` it has to be.
    """

    key: K
    """What it waits for."""
    reply: Reply
    expires: float
    """On the actor's clock."""
    answer: Callable[[bool], bool]
    timer: Timer[Any] | None = None


class _Expired(msgspec.Struct, frozen=True):
    polls: LongPolls[Any]
    poll: Poll[Any]


class LongPolls(Generic[K]):
    """The polls of one actor, by what they wait for. It passes what it receives to `handle`."""

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        self._waiting: dict[K, list[Poll[K]]] = {}

    @property
    def idle(self) -> bool:
        return not self._waiting

    def waits_for(self, key: K) -> bool:
        return key in self._waiting

    def open(self, key: K, reply: Reply, wait: float, answer: Callable[[bool], bool]) -> None:
        """Have it answered now or as soon as there is something to say, after `wait` seconds
        at the latest."""
        poll = Poll(key, reply, self._actor.clock.now() + wait, answer)
        if not self._try(poll, last=not wait):
            self.park(poll)

    def park(self, poll: Poll[K]) -> None:
        """Let it wait for what is left of its time."""
        left = poll.expires - self._actor.clock.now()
        if left <= 0:
            self._try(poll, last=True)
            return
        poll.timer = self._actor.after(left, _Expired(self, poll))
        self._waiting.setdefault(poll.key, []).append(poll)

    def wake(self, *keys: K) -> None:
        """There may be something to say to who waits for these."""
        for key in keys:
            for poll in self._waiting.pop(key, ()):
                if not self._try(poll, last=False):
                    self._waiting.setdefault(key, []).append(poll)
                elif poll.timer is not None:
                    poll.timer.cancel()

    def wake_all(self) -> None:
        self.wake(*self._waiting)

    def handle(self, message: object) -> bool:
        """Whether the message was for these polls."""
        if not isinstance(message, _Expired) or message.polls is not self:
            return False
        poll = message.poll
        waiting = self._waiting.get(poll.key, [])
        if poll in waiting:
            waiting.remove(poll)
            if not waiting:
                del self._waiting[poll.key]
            self._try(poll, last=True)
        return True

    def _try(self, poll: Poll[K], *, last: bool) -> bool:
        """An asker that has gone is done with."""
        return poll.reply.done or poll.answer(last)
