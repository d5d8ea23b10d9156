"""Answers long polls of a swarm's feeds and end, and of its tasks that wait for other tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from manta.actors import Refused, Reply
from manta.manager.errors import StoreError
from manta.manager.long_polls import LongPolls
from manta.manager.notices import Notice
from manta.manager.notices import mark as mark_of
from manta.manager.swarm.commits import Commits
from manta.manager.swarm.exchange import Topic
from manta.manager.swarm.letters import Most
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads import queries
from manta.manager.swarm.reads.exchange import topic_of
from manta.manager.swarm.reads.meetings import Nodes
from manta.manager.swarm.reads.nodes import exchanged
from manta.protocol.codes import Code
from manta.protocol.exchange import Exchanged, ExchangeRead
from manta.protocol.states import SwarmState
from manta.protocol.user import EventItem, FeedName, FeedPage, ReadFeed, SwarmInfo, WaitSwarm


@dataclass
class Situation:
    """The swarm as users see it now, and what keeps it waiting."""

    info: SwarmInfo
    notices: tuple[Notice, ...]
    at: float
    """Seconds since the epoch."""
    settled: bool
    """Nothing is being stored that may change it."""

    def told(self, page: FeedPage, before: str) -> FeedPage:
        """The page, with these notices if the reader was told others."""
        mark = mark_of(self.notices)
        over = not mark and not self.settled  # perhaps by the swarm's own end
        if mark == before or over or SwarmState(self.info.status).final:
            return replace(page, told=before)
        sentence = " ".join(notice.sentence for notice in self.notices)
        sentence = sentence or "What kept it waiting is over: it goes on."
        event = EventItem(self.at, "notice", sentence)
        return replace(page, items=(*page.items, event), told=mark)


@dataclass
class Feeds:
    """Shows only what is durable, so that a cursor means the same after a restart.

    For log lines see `Lines`.
    """

    polls: LongPolls[FeedName | None]
    """By feed; None stands for the swarm's state, which is part of every page."""
    machine: SwarmMachine
    commits: Commits
    situation: Callable[[], Situation]

    @property
    def info(self) -> SwarmInfo:
        return self.situation().info

    def noticed(self) -> None:
        """What keeps the swarm waiting may have changed."""
        self.polls.wake("events")

    @property
    def over(self) -> bool:
        return SwarmState(self.commits.shown.status).final

    def read(self, message: ReadFeed, reply: Reply) -> None:
        def answer(last: bool) -> bool:
            page = self._page(message)
            if last or page.items or page.ended:
                reply.set(page)
                return True
            return False

        self.polls.open(message.feed, reply, message.wait, answer)

    def _page(self, read: ReadFeed) -> FeedPage:
        end = self.commits.seen["settled" if read.settled else read.feed]
        page = queries.page(
            self.machine,
            read.feed,
            read.after,
            read.limit,
            read.tag,
            settled=read.settled,
            end=end,
        )
        now = self.situation()
        page = replace(page, swarm=now.info, ended=page.ended and self.over)
        return page if read.told is None or read.feed != "events" else now.told(page, read.told)

    def wait(self, message: WaitSwarm, reply: Reply) -> None:
        """Answers at the swarm's end."""

        def answer(last: bool) -> bool:
            if last or self.over:
                reply.set(self.info)
                return True
            return False

        self.polls.open(None, reply, message.wait, answer)


@dataclass
class ExchangePolls:
    """An answer that rests on an event which is still being stored waits until it is durable."""

    polls: LongPolls[Topic]
    machine: SwarmMachine
    commits: Commits
    most: Callable[[], Most]
    """The letters that the swarm may have."""
    nodes: Nodes

    def open(self, read: ExchangeRead, node_id: str, reply: Reply) -> None:
        wait = getattr(read, "wait", 0.0)
        self.polls.open(
            topic_of(self.machine.data, read),
            reply,
            wait,
            lambda last: self._try(read, node_id, reply, last),
        )

    def _try(self, read: ExchangeRead, node_id: str, reply: Reply, last: bool) -> bool:
        try:
            answer = exchanged(self.machine, read, node_id, self.most(), self.nodes)
        except Refused as refusal:
            reply.fail(refusal)
            return True
        if isinstance(answer, Exchanged) and not (answer.ready or answer.error or last):
            return False

        def stored(error: StoreError | None) -> None:
            if error is None:
                reply.set(answer)
            else:
                reply.fail(Refused(Code.UNAVAILABLE, f"{error} Ask again."))

        self.commits.when_durable(stored)
        return True
