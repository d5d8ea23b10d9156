"""Stores a swarm's log lines, once each, and reads them by cursor.

The machine knows nothing of them, since they decide nothing. Nodes number them apart from the
journal. Lines of instances that their node was never given are not stored; only where they are the
last of a batch, a line without content keeps their number. Reading takes milliseconds, so it is
done on a worker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby

import msgspec

from manta.actors import Actor, Ref, Reply
from manta.manager.context import Context
from manta.manager.errors import StoreError
from manta.manager.long_polls import Poll
from manta.manager.store.actor import Writer
from manta.manager.store.interface import AppendLogs, SkipLogs, StoredLine, Write
from manta.manager.swarm.bounds import Bounds
from manta.manager.swarm.inflow import Inflow
from manta.manager.swarm.messages import Orders
from manta.manager.swarm.reads.polls import Feeds
from manta.manager.swarm.reads.queries import ITEM_BYTES
from manta.manager.views import ClusterView
from manta.protocol.node import Instance, LogAck, LogBatch, LogLine
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.user import FeedName, FeedPage, LogItem, ReadFeed, SwarmInfo
from manta.transports.codec.stored import Damaged, Thing, read_stored

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(LogLine).decode


@dataclass
class Lines:
    actor: Actor
    context: Context
    view: ClusterView
    swarm_id: str
    writer: Writer
    feeds: Feeds
    bounds: Bounds
    cluster: Ref
    was_given: Callable[[Instance, str], bool]
    """Whether the instance, with its attempt, was ever assigned to the node of that id."""
    inflow: Inflow

    def __post_init__(self) -> None:
        self._stored = self.context.reader.log_ends(self.swarm_id)
        """The number of each node's last durable line."""
        self._taken = dict(self._stored)
        """The number of each node's last line that was sent to the store."""
        self.unstored = 0
        """How many writes are under way."""
        self._version = 0
        self._numbers_known = self.context.restored is None
        """False where the store went back to an earlier state: lines between a node's last one here
        and its next may be lost."""
        self._heard: set[str] = set()

    @property
    def complete(self) -> bool:
        """Whether no line comes any more."""
        return self.feeds.over and not self.inflow and self._taken == self._stored

    def went_back(self) -> None:
        """The store lacks lines that it held once."""
        self._numbers_known = False
        self._heard.clear()

    def take(self, node_id: str, batch: LogBatch) -> None:
        last = self._taken.get(node_id, 0)
        if not self._numbers_known and node_id not in self._heard:
            self._heard.add(node_id)
            last = max(last, batch.first - 1)
        end = batch.first + len(batch.lines) - 1
        if batch.first > last + 1 or end <= last:  # a gap, or nothing new
            self._acknowledge_stored(node_id)
            return
        if not self.context.disk.takes_lines:
            return  # they wait on the node, which sends them again
        self._taken[node_id] = end
        fresh = batch.lines[last + 1 - batch.first :]

        def stored(error: StoreError | None) -> None:
            if error is None:  # else it is being tried again
                self.unstored -= 1
                self._stored[node_id] = end
                self._version += 1
                self._acknowledge_stored(node_id)
                self.feeds.polls.wake("logs")

        self.unstored += 1
        self.writer.write(*self._viable(node_id, last + 1, fresh), then=stored, keep=True)

    def _viable(self, node_id: str, first: int, lines: tuple[LogLine, ...]) -> Iterator[Write]:
        """What is stored of these lines, numbered from `first`: those that are the node's, as far
        as the swarm's quota goes."""
        given = {at: self.was_given(at, node_id) for at in {line.instance for line in lines}}
        numbered = [
            (number, _encode(line))
            for number, line in enumerate(lines, first)
            if given[line.instance]
        ]
        kept, breach = self.bounds.take_lines([len(body) for _, body in numbered])
        numbered, left_out = numbered[:kept], numbered[kept:]
        if breach is not None and breach.quota not in self.bounds.told:
            self.bounds.told.add(breach.quota)
            number, sentence = left_out[0][0], f"{breach.sentence} What comes later is left out."
            line = msgspec.structs.replace(lines[number - first], stream="warning", text=sentence)
            numbered.append((number, _encode(line)))
        # In runs of numbers that follow each other: they grow as fast as the places in the list.
        for _, run in groupby(enumerate(numbered), lambda one: one[1][0] - one[0]):
            numbers, bodies = zip(*(one for _, one in run), strict=True)
            yield AppendLogs(self.swarm_id, node_id, numbers[0], bodies)
        last = first + len(lines) - 1
        if not numbered or numbered[-1][0] < last:
            yield SkipLogs(self.swarm_id, node_id, last)

    def _acknowledge_stored(self, node_id: str) -> None:
        ack = LogAck(self.swarm_id, self._stored.get(node_id, 0))
        self.actor.notify(self.cluster, Orders(self.swarm_id, messages=((node_id, ack),)))

    def read(self, read: ReadFeed, reply: Reply, who: str) -> None:
        """Answers as soon as there are lines, or at the end of the wait. `who`: the id of the user
        who asks."""
        poll = Poll[FeedName | None](
            "logs",
            reply,
            self.actor.clock.now() + read.wait,
            lambda last: self._answer_poll(poll, read, who, last),
        )
        self._read(poll, read, who)

    def _answer_poll(
        self, poll: Poll[FeedName | None], read: ReadFeed, who: str, last: bool
    ) -> bool:
        if last:
            poll.reply.set(FeedPage((), read.after, False, self.feeds.info))
        else:
            self._read(poll, read, who)
        return True

    def _read(self, poll: Poll[FeedName | None], read: ReadFeed, who: str) -> None:
        """Reads on a worker, then answers the poll or parks it."""
        aliases, version, info = self.view.aliases, self._version, self.feeds.info
        complete = self.complete  # looked at before the lines are read, so that none is missed
        reader, swarm_id = self.context.reader, self.swarm_id

        def job() -> FeedPage:
            return _page(
                reader.logs(swarm_id, read.after, read.limit), read, aliases, complete, info
            )

        def then(page: FeedPage) -> None:
            if page.items or page.ended or page.cursor > read.after:
                poll.reply.set(page)
            elif version != self._version or complete != self.complete:
                self._read(poll, read, who)  # some came meanwhile
            else:
                self.feeds.polls.park(poll)

        self.actor.pipe(self.context.jobs.submit(who, job), then, reply=poll.reply)


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
        LogItem(line.node_id, aliases.get(line.node_id, line.node_id), _line(line, info.swarm_id))
        for line in shown
        if line.body
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


def _line(stored: StoredLine, swarm_id: str) -> LogLine:
    """A line that is damaged says so in its place."""
    thing = Thing(
        f"Log line {stored.position} in the manager's database",
        "what it said is lost",
        "restore a backup if you need it",
    )
    try:
        return read_stored(thing, _decode, stored.body)
    except Damaged as damaged:
        return LogLine(Instance(swarm_id, "", 0, 0), 0.0, "error", str(damaged))
