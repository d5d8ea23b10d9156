"""Requests that wait until there is an answer or their time is over."""

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

    `answer(last)` is called whenever there may be an answer, and with `last` once the time is
    over. It returns False to go on waiting, which it may not with `last`.
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
    """The polls of one actor, which passes what it receives to `handle`."""

    def __init__(self, actor: Actor, everything: K | None = None) -> None:
        """`wake(everything)` wakes all polls."""
        self._actor = actor
        self._everything = everything
        self._waiting: dict[K, list[Poll[K]]] = {}

    @property
    def idle(self) -> bool:
        return not self._waiting

    def waits_for(self, key: K) -> bool:
        return key in self._waiting

    def open(self, key: K, reply: Reply, wait: float, answer: Callable[[bool], bool]) -> None:
        """Has the request answered now or as soon as there is an answer, after `wait` seconds
        at the latest."""
        poll = Poll(key, reply, self._actor.clock.now() + wait, answer)
        if not self._try(poll, last=not wait):
            self.park(poll)

    def park(self, poll: Poll[K]) -> None:
        """Lets it wait for the rest of its time."""
        left = poll.expires - self._actor.clock.now()
        if left <= 0:
            self._try(poll, last=True)
            return
        poll.timer = self._actor.after(left, _Expired(self, poll))
        self._waiting.setdefault(poll.key, []).append(poll)

    def wake(self, *keys: K) -> None:
        """Tries to answer the polls that wait for these."""
        for key in list(self._waiting) if self._everything in keys else keys:
            for poll in self._waiting.pop(key, ()):
                if not self._try(poll, last=False):
                    self._waiting.setdefault(key, []).append(poll)
                elif poll.timer is not None:
                    poll.timer.cancel()

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
        """A poll whose asker is gone is not answered."""
        return poll.reply.done or poll.answer(last)
