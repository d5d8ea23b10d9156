"""A swarm's log lines: taken down once each, read by cursor.

They are the store's, not the machine's: nothing is decided by them. Nodes number them
apart from the journal. Reading takes milliseconds, so a worker does it.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from manta.actors import Actor
from manta.manager.context import Context, work
from manta.manager.errors import StoreError
from manta.manager.store.actor import Writer
from manta.manager.store.interface import AppendLogs, StoredLine
from manta.manager.swarm.reads.feeds import Feeds, Poll
from manta.manager.swarm.reads.queries import ITEM_BYTES
from manta.manager.views import ClusterView
from manta.protocol.node import LogAck, LogBatch, LogLine
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.user import FeedPage, LogItem, ReadFeed, SwarmInfo

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LogLine).decode


class Lines:
    def __init__(
        self,
        actor: Actor,
        context: Context,
        view: ClusterView,
        swarm_id: str,
        writer: Writer,
        feeds: Feeds,
        acknowledge: Callable[[str, LogAck], None],
    ) -> None:
        self._actor = actor
        self._context = context
        self._view = view
        self._swarm_id = swarm_id
        self._writer = writer
        self._feeds = feeds
        self._acknowledge = acknowledge
        self._stored = context.reader.log_ends(swarm_id)
        """By node: the number of its last line that is durable."""
        self._taken = dict(self._stored)
        """And of its last line that was sent to the store."""
        self._version = 0
        self._numbers_known = context.restored is None
        """Else what lies between a node's last line here and its next one may be lost."""
        self._heard: set[str] = set()

    def take(self, node_id: str, batch: LogBatch) -> None:
        last = self._taken.get(node_id, 0)
        if not self._numbers_known and node_id not in self._heard:
            self._heard.add(node_id)
            last = max(last, batch.first - 1)
        end = batch.first + len(batch.lines) - 1
        if batch.first > last + 1 or end <= last:  # a gap, or nothing new
            self._answer(node_id)
            return
        self._taken[node_id] = end
        bodies = tuple(map(_encode, batch.lines[last + 1 - batch.first :]))

        def stored(error: StoreError | None) -> None:
            if error is None:  # else it is being tried again
                self._stored[node_id] = end
                self._version += 1
                self._answer(node_id)
                self.wake()

        write = AppendLogs(self._swarm_id, node_id, last + 1, bodies)
        self._writer.write(write, then=stored, keep=True)

    def _answer(self, node_id: str) -> None:
        self._acknowledge(node_id, LogAck(self._swarm_id, self._stored.get(node_id, 0)))

    def wake(self) -> None:
        for poll in self._feeds.take("logs"):
            self.read(poll)

    def read(self, poll: Poll) -> None:
        """Answer the poll, or park it until there are lines."""
        read, aliases, version = poll.message, self._view.aliases, self._version
        assert isinstance(read, ReadFeed)
        info = self._feeds.info()
        # Asked before the lines are read: what is not there by then comes too late to wait for.
        complete = self._feeds.final() and self._taken == self._stored
        reader, swarm_id = self._context.reader, self._swarm_id

        def job() -> FeedPage:
            return _page(
                reader.logs(swarm_id, read.after, read.limit), read, aliases, complete, info
            )

        def then(page: FeedPage) -> None:
            if page.items or page.ended or page.cursor > read.after:
                poll.reply.set(page)
            elif version != self._version or complete != self._feeds.final():
                self.read(poll)  # some came meanwhile
            else:
                self._feeds.park(poll)

        work(self._actor, self._context.workers, job, then, poll.reply)


def _page(
    stored: list[StoredLine],
    read: ReadFeed,
    aliases: dict[str, str],
    complete: bool,
    info: SwarmInfo,
) -> FeedPage:
    shown, room = list[StoredLine](), PAGE_BYTES
    for line in stored:
        room -= ITEM_BYTES + len(line.body)
        if room < 0 and shown:
            break
        shown.append(line)
    lines = (
        LogItem(line.node_id, aliases.get(line.node_id, line.node_id), _decode(line.body))
        for line in shown
    )
    items = tuple(
        item
        for item in lines
        if read.node in (None, item.node_id, item.node_alias)
        and read.task in (None, item.line.instance.alias)
    )
    cursor = shown[-1].position if shown else read.after
    ended = complete and len(stored) < read.limit and len(shown) == len(stored)
    return FeedPage(items, cursor, ended, info)
