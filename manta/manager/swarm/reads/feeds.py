"""Who reads along while a swarm runs: long polls, answered when there is something to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from manta.actors import Reply
from manta.manager.long_polls import LongPolls
from manta.protocol.user import FeedName, FeedPage, ReadFeed, SwarmInfo, WaitSwarm


@dataclass
class Feeds:
    """The feeds that the swarm's machine keeps; log lines are the store's, see `Lines`.

    `page` reads a feed; `info` tells how the swarm stands.
    """

    polls: LongPolls[FeedName | None]
    """By feed; None is the swarm's state."""
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
        """For the swarm's end."""

        def answer(last: bool) -> bool:
            if last or self.final():
                reply.set(self.info())
                return True
            return False

        self.polls.open(None, reply, message.wait, answer)

    def wake(self, *feeds: FeedName | None) -> None:
        """These have grown; the swarm's state is of interest to all."""
        if None in feeds:
            self.polls.wake_all()
        else:
            self.polls.wake(*feeds)
