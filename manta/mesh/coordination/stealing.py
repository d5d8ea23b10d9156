"""Items that peers divide among themselves: who has none left takes some of another's. Pure.

Theory of operation. Each item is *owned* by one peer, at first in equal parts, and only its owner
may begin it or give it away. A peer with nothing left asks the one that owns most, as far as it
knows, and is given half of what that has not begun (work stealing: Blumofe and Leiserson 1999; by
halves: Hendler and Shavit 2002). All peers keep a table of all items, and pass on what is new in
theirs until it is acknowledged (delta states: Almeida, Shoker and Baquero 2018). Of two rows for an
item the later one holds, and one that says that it is done holds in the end: so all tables come to
be the same, in whatever order messages arrive.

What a dead peer owned, the living one with the lowest id takes over and begins anew, as another
*run*. Before, it asks all others: each tells what it has, and takes nothing more from the dead one
until the takeover is over, or it could begin what the dead one gave away last, as a second one.

So an item is begun by one peer, unless somebody counted a peer dead that owned it: then it may have
been done, or half done, by that one too. Runs are told apart by their number and their worker. On
both sides of a partition, all that is not known to be done is done. Afterwards one run counts, on
all peers the same: that with the lowest number, and of those that of the lowest id.

| item | leaves when |
|---|---|
| open | its owner begins it or gives it away, or is counted dead: open, in a next run |
| begun | it is completed: done; its owner is counted dead: open, in a next run |
| done | final, but for which of several runs counts |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from manta.mesh.coordination.events import Ignored, Joined, Left, Received, Send, Tick

PERIOD = 0.2
"""Seconds until a peer hears again what it has not acknowledged."""
FAN = 3
"""To how many peers at most what is new is told in a period, in turn."""
MOST_ITEMS = 10_000
MOST_RESULT = 1024
"""Bytes that a result may have, since all peers keep all."""
_MOST_PEERS = 10_000

_Number = Annotated[int, Meta(ge=0, lt=1 << 62)]
_Id = Annotated[str, Meta(max_length=200)]


class Row(NamedTuple):
    """What is known of an item."""

    item: _Number
    run: _Number
    """From 1."""
    version: _Number
    """How often it was given away in this run."""
    owner: _Id
    """Who did it, if it is done."""
    is_done: bool = False
    result: Annotated[bytes, Meta(max_length=MOST_RESULT)] = b""


class Takeover(NamedTuple):
    dead: _Id
    number: _Number
    """Of those that one peer begins."""


class News(Struct, frozen=True, tag="news", array_like=True):
    """What is new at the sender since the receiver acknowledged anything."""

    upto: _Number
    """How much has changed at the sender, in sum."""
    heard: _Number
    """What the sender had from the receiver: its `upto`."""
    asks: bool
    """The receiver has not acknowledged all of it."""
    rows: Annotated[tuple[Row, ...], Meta(max_length=MOST_ITEMS)] = ()
    takes: Annotated[tuple[Takeover, ...], Meta(max_length=_MOST_PEERS)] = ()
    """Yield to these."""
    yields: Annotated[tuple[Takeover, ...], Meta(max_length=_MOST_PEERS)] = ()
    """Of the receiver: the sender takes nothing of the dead ones."""
    wants: _Number = 0
    """The sender's request for items of the receiver; 0 for none."""
    served: _Number = 0
    """The last request of the receiver that the sender has met, as far as it could."""


class Completed(NamedTuple):
    """The item that was to be run is done."""

    item: int
    result: bytes = b""


Message = News
Event = Joined | Left | Received[News] | Completed | Tick


class Run(NamedTuple):
    """Do the item, and say `Completed`. If `run` is above 1, it may have been done before, wholly
    or in part, by a peer that was counted dead."""

    item: int
    run: int


class Finished(NamedTuple):
    """All items are done."""


Action = Send[News] | Run | Finished | Ignored


@dataclass
class _Peer:
    acknowledged: int = 0
    """Of what changed here."""
    received: int = 0
    """Of what changed there."""
    owes: bool = False
    """It waits for an acknowledgement."""
    served: int = 0
    takes: tuple[Takeover, ...] = ()
    yields: frozenset[Takeover] = frozenset()


class Stealing:
    """Of one peer."""

    def __init__(
        self, me: str, items: int, owners: Sequence[str], alive: Iterable[str] = ()
    ) -> None:
        """`owners` divide the items at first: all peers must be given the same, also those that
        join later. `alive` are the other peers that the mesh counts alive now. Raises ValueError.
        """
        if not 0 <= items <= MOST_ITEMS:
            raise ValueError(f"There are {items} items: divide 0 to {MOST_ITEMS}.")
        if not owners or len({*owners}) < len(owners):
            raise ValueError(f"The owners are {owners!s:.60}: name each peer once, one at least.")
        self.me = me
        self.due: float | None = None
        """When it wants a Tick."""
        self.running: Run | None = None
        self.rows = [Row(item, 1, 0, owners[item * len(owners) // items]) for item in range(items)]
        """By item."""
        self._changed = [0] * items
        """By item: the change that made its row what it is."""
        self._changes = 0
        self._open: dict[str, set[int]] = {}
        """By owner: what is not done."""
        for row in self.rows:
            self._open.setdefault(row.owner, set()).add(row.item)
        self._peers = {peer: _Peer() for peer in alive if peer != me}
        self._takes: dict[str, Takeover] = {}
        self._takeovers = 0
        self._wanted: tuple[str, int] | None = None
        """Of whom, and the number of the request."""
        self._wants = 0
        self._turn = 0
        self._is_finished = False
        self._urgent: set[str] = set()

    def handle(self, event: Event, now: float) -> list[Action]:
        """Takes what happened at a time in seconds, and returns what is to be done."""
        actions: list[Action] = []
        match event:
            case Joined(peer) if peer != self.me:
                self._peers[peer] = _Peer()
            case Left(peer):
                self._peers.pop(peer, None)
            case Received(sender, message) if sender in self._peers:
                actions += self._received(sender, message)
            case Completed(item, result):
                self._completed(item, result)
        actions += self._begun()
        self._take_over()
        actions += self._begun()
        self._want()
        return [*actions, *self._told(now, is_tick=isinstance(event, Tick))]

    # --- the table ----------------------------------------------------------------------------

    def _set(self, row: Row) -> None:
        """If it holds against the one that is there."""
        old = self.rows[row.item]
        if _holds(row, old):
            self._open.get(old.owner, set()).discard(row.item)
            if not row.is_done:
                self._open.setdefault(row.owner, set()).add(row.item)
            self.rows[row.item] = row
            self._changed[row.item] = self._change()

    def _change(self) -> int:
        self._changes += 1
        return self._changes

    def _waiting(self) -> list[int]:
        """What this peer owns and has not begun."""
        begun = {self.running.item} if self.running else set()
        return sorted(self._open.get(self.me, set()) - begun)

    def _completed(self, item: int, result: bytes) -> None:
        if self.running is None or self.running.item != item:
            raise ValueError(f"Item {item} was not to be run: {self.running} is.")
        if len(result) > MOST_RESULT:
            raise ValueError(
                f"The result of item {item} has {len(result)} bytes: {MOST_RESULT} at most; "
                "keep more elsewhere, and say where."
            )
        run, self.running = self.running.run, None
        self._set(Row(item, run, 0, self.me, True, result))

    def _begun(self) -> Iterator[Action]:
        if self.running is None and (waiting := self._waiting()):
            self.running = Run(waiting[0], self.rows[waiting[0]].run)
            yield self.running
        if not self._is_finished and not any(self._open.values()):
            self._is_finished = True
            yield Finished()

    # --- what peers say -----------------------------------------------------------------------

    def _received(self, sender: str, news: News) -> Iterator[Action]:
        peer = self._peers[sender]
        if any(take.dead == sender for one in self._peers.values() for take in one.takes):
            return  # somebody takes over what it owns; it says this again
        if any(not 0 <= row.item < len(self.rows) for row in news.rows):
            yield Ignored(sender, f"It has items that are not among the {len(self.rows)}.")
            return
        if news.heard > self._changes:
            yield Ignored(sender, f"It has heard {news.heard} changes of {self._changes}.")
            return
        peer.acknowledged = max(peer.acknowledged, news.heard)
        peer.owes |= news.asks
        if news.upto < peer.received:  # another has overtaken it
            return
        peer.received = news.upto
        for row in news.rows:
            self._set(row)
        peer.yields = frozenset(news.yields)
        takes = tuple(take for take in news.takes if take.dead != self.me)
        if peer.takes != takes:
            peer.takes = takes
            self._change()
            self._urgent.add(sender)
        if self._wanted == (sender, news.served):
            self._wanted = None
        if news.wants > peer.served:
            peer.served = news.wants
            self._give(sender)

    def _give(self, thief: str) -> None:
        waiting = self._waiting()
        for item in waiting[len(waiting) // 2 :]:
            row = self.rows[item]
            self._set(row._replace(version=row.version + 1, owner=thief))
        self._change()
        self._urgent.add(thief)

    def _want(self) -> None:
        if self._wanted and self._wanted[0] not in self._peers:
            self._wanted = None
        if self._wanted or self.running:
            return
        victims = [peer for peer in sorted(self._peers) if len(self._open.get(peer, ())) > 1]
        if victims:
            self._wants += 1
            victim = max(victims, key=lambda peer: len(self._open[peer]))
            self._wanted = victim, self._wants
            self._change()
            self._urgent.add(victim)

    # --- takeovers ----------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Asks for yields, and takes what dead peers owned once all have given theirs."""
        dead = {owner for owner, items in self._open.items() if items} - {self.me, *self._peers}
        if self.me > min(self._peers, default=self.me):
            dead = set()
        for owner in sorted(dead - {*self._takes}):
            self._takeovers += 1
            self._takes[owner] = Takeover(owner, self._takeovers)
            self._change()
            self._urgent.update(self._peers)
        for owner in {*self._takes} - dead:
            del self._takes[owner]
            self._change()
        for owner, take in list(self._takes.items()):
            if all(take in peer.yields for peer in self._peers.values()):
                for item in sorted(self._open[owner]):
                    row = self.rows[item]
                    self._set(Row(item, row.run + 1, 0, self.me))
                del self._takes[owner]
                self._change()

    # --- what is said to peers ----------------------------------------------------------------

    def _told(self, now: float, is_tick: bool) -> Iterator[Action]:
        lacking = [
            name
            for name, peer in sorted(self._peers.items())
            if peer.acknowledged < self._changes or peer.owes
        ]
        if is_tick and self.due is not None and self.due <= now:
            self.due = None
            if lacking:
                start = self._turn % len(lacking)
                self._urgent.update([*lacking[start:], *lacking[:start]][:FAN])
                self._turn += FAN
            if self._wanted:
                self._urgent.add(self._wanted[0])
            if self._takes:
                self._urgent.update(self._peers)
        for name in sorted(self._urgent & {*self._peers}):
            yield Send(name, self._news(self._peers[name], name))
        self._urgent.clear()
        if not lacking:
            self.due = None
        elif self.due is None:
            self.due = now + PERIOD

    def _news(self, peer: _Peer, name: str) -> News:
        peer.owes = False
        wanted = self._wanted
        return News(
            upto=self._changes,
            heard=peer.received,
            asks=peer.acknowledged < self._changes,
            rows=tuple(
                row
                for row, changed in zip(self.rows, self._changed, strict=True)
                if changed > peer.acknowledged
            ),
            takes=tuple(self._takes.values()),
            yields=peer.takes,
            wants=wanted[1] if wanted and wanted[0] == name else 0,
            served=peer.served,
        )


def _holds(new: Row, old: Row) -> bool:
    """Whether one row for an item holds against another. All peers come to the same."""
    if new.is_done != old.is_done:
        return new.is_done
    if new.is_done:
        return (new.run, new.owner) < (old.run, old.owner)
    return (new.run, new.version, new.owner) > (old.run, old.version, old.owner)
