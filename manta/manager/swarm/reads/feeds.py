"""Answers long polls of a swarm's feeds and of its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manta.actors import Reply
from manta.manager.long_polls import LongPolls
from manta.protocol.user import FeedName, FeedPage, ReadFeed, SwarmInfo, WaitSwarm


@dataclass
class Feeds:
    """`page` reads a feed of the machine, `info` the swarm's state. For log lines see `Lines`."""

    polls: LongPolls[FeedName | None]
    """By feed; None stands for the swarm's state."""
    page: Callable[[ReadFeed], FeedPage]
    info: Callable[[], SwarmInfo]
    final: Callable[[], bool]

    def read(self, message: ReadFeed, reply: Reply) -> None:
        def answer(last: bool) -> bool:
            page = self.page(message)
            if last or page.items or page.ended:
                reply.set(page)
                return True
            return False

        self.polls.open(message.feed, reply, message.wait, answer)

    def wait(self, message: WaitSwarm, reply: Reply) -> None:
        """Answers at the swarm's end."""

        def answer(last: bool) -> bool:
            if last or self.final():
                reply.set(self.info())
                return True
            return False

        self.polls.open(None, reply, message.wait, answer)

    def wake(self, *feeds: FeedName | None) -> None:
        """Call it when these have grown; None, the swarm's state, wakes the polls of all feeds."""
        if None in feeds:
            self.polls.wake_all()
        else:
            self.polls.wake(*feeds)
