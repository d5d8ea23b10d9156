"""Who reads along while a swarm runs: long polls, answered when there is something to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from manta.actors import Actor, Reply, Timer
from manta.protocol.user import FeedName, FeedPage, ReadFeed, SwarmInfo, WaitSwarm


@dataclass(eq=False)
class Poll:
    """One reader; `expires` is on the actor's clock."""

    message: ReadFeed | WaitSwarm
    reply: Reply
    expires: float
    timer: Timer | None = None  # type: ignore[type-arg]


class PollExpired(msgspec.Struct, frozen=True):
    poll: Poll


@dataclass
class Feeds:
    """The polls that wait, by what they wait for.

    `page` reads a feed, but for logs; `info` tells how the swarm stands.
    """

    actor: Actor
    page: Callable[[ReadFeed], FeedPage]
    info: Callable[[], SwarmInfo]
    final: Callable[[], bool]
    _waiting: dict[FeedName | None, list[Poll]] = field(default_factory=dict)

    @property
    def idle(self) -> bool:
        return not any(self._waiting.values())

    def open(self, message: ReadFeed | WaitSwarm) -> Poll:
        return Poll(message, self.actor.defer(), self.actor.clock.now() + message.wait)

    def serve(self, poll: Poll) -> None:
        """Answer now if there is something to say, else park."""
        if not self._try(poll, last=False):
            self.park(poll)

    def park(self, poll: Poll) -> None:
        left = poll.expires - self.actor.clock.now()
        if left <= 0:
            self._try(poll, last=True)
            return
        poll.timer = self.actor.after(left, PollExpired(poll))
        self._waiting.setdefault(_feed(poll), []).append(poll)

    def wake(self, *feeds: FeedName | None) -> None:
        """These have grown; None stands for the swarm's state, which is of interest to all."""
        for feed in list(self._waiting) if None in feeds else feeds:
            polls, self._waiting[feed] = self._waiting.get(feed, []), []
            for poll in polls:
                if self._try(poll, last=False):
                    _cancel(poll)
                else:
                    self._waiting[feed].append(poll)

    def take(self, feed: FeedName) -> list[Poll]:
        """Those that wait for a feed that `page` does not read."""
        polls = self._waiting.pop(feed, [])
        for poll in polls:
            _cancel(poll)
        return polls

    def expired(self, poll: Poll) -> None:
        waiting = self._waiting.get(_feed(poll), [])
        if poll in waiting:
            waiting.remove(poll)
            self._try(poll, last=True)

    def _try(self, poll: Poll, *, last: bool) -> bool:
        if poll.reply.done:
            return True  # the asker is gone
        if isinstance(poll.message, WaitSwarm):
            if last or self.final():
                poll.reply.set(self.info())
                return True
            return False
        if poll.message.feed == "logs":
            if last:
                poll.reply.set(FeedPage((), poll.message.after, False, self.info()))
            return last
        page = self.page(poll.message)
        if last or page.items or page.ended:
            poll.reply.set(page)
            return True
        return False


def _feed(poll: Poll) -> FeedName | None:
    return poll.message.feed if isinstance(poll.message, ReadFeed) else None


def _cancel(poll: Poll) -> None:
    if poll.timer is not None:
        poll.timer.cancel()
