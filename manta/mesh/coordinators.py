"""Peers of a mesh that divide work and agree on who leads: threads around pure machines.

A `Coordinator` has a machine of `manta.mesh.coordination` and a thread that feeds it: who comes and
goes, what the machines of others under the same name say, and the time. `Mesh.leader`, `Mesh.share`
and `Mesh.market` make them.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from manta.light.errors import Timeout
from manta.mesh.client import Client
from manta.mesh.coordination import leader, negotiation, stealing
from manta.mesh.coordination.events import Ignored, Joined, Left, Received, Send, Tick
from manta.mesh.errors import MeshLost
from manta.transports.codec.decoders import MALFORMED
from manta.transports.codec.values import decode, encode

MOST_WAITING = 10_000
"""What others say, and is not taken in yet: of more, some is lost."""
LINGER = 3.0
ARRIVALS = frozenset({"joined", "back"})
DEPARTURES = frozenset({"died", "left"})

log = logging.getLogger("manta.mesh")
A = TypeVar("A")


class Machine(Protocol):
    due: float | None

    def handle(self, event: Any, now: float) -> list[Any]: ...


M = TypeVar("M", bound=Machine)


class Coordinator(Generic[M]):
    """Of one name in a mesh: all peers that take part have one. A context manager."""

    kind = ""
    says: Any

    def __init__(self, client: Client, name: str, make: Callable[[list[str]], M]) -> None:
        """`make` is called with the other peers that are alive. Raises MeshLost."""
        self._client = client
        self._topic = f"{self.kind}/{name}"
        self._decoder = msgspec.msgpack.Decoder(self.says)
        self._inbox: queue.Queue[Any] = queue.Queue()
        self._changed = threading.Condition()
        """Of what is read here by other threads."""
        self._is_over = False
        client.listen(self._hear)
        peers = client.request("status")["status"]["peers"]
        alive = [one["id"] for one in peers if one["state"] in ("alive", "suspect")]
        self._alive = set(alive)
        self._machine = make(alive)
        self._thread = threading.Thread(target=self._run, name=f"manta-{self.kind}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Takes no part any more; the second time it does nothing."""
        if not self._is_over:
            self._inbox.put(None)
            self._thread.join()

    def __enter__(self: A) -> A:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the thread of the client's -------------------------------------------------------------

    def _hear(self, told: dict[str, Any] | None) -> None:
        is_ours = told is None or told["event"] in ARRIVALS | DEPARTURES
        if told is not None and told.get("topic") == self._topic:
            is_ours = self._inbox.qsize() < MOST_WAITING
        if is_ours:
            self._inbox.put(told)

    # --- the thread of its own ------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for id_ in self._known:
                self._take(Joined(id_))
            self._take(Tick())
            while (told := self._next()) is not None:
                self._happened(told)
        except MeshLost:
            pass  # whoever waits is told
        finally:
            with suppress(ValueError):
                self._client.ignore(self._hear)
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    @property
    def _known(self) -> list[str]:
        """Of whom the machine is to hear at first."""
        return sorted(self._alive)

    def _next(self) -> Any:
        """What happens next; None at the end."""
        due = self._machine.due
        try:
            return self._inbox.get(
                timeout=None if due is None else max(0.0, due - time.monotonic())
            )
        except queue.Empty:
            return Tick()

    def _happened(self, told: Any) -> None:
        if not isinstance(told, dict):
            self._take(told)
        elif told["event"] in ARRIVALS:
            self._arrived(told["id"])
        elif told["event"] in DEPARTURES and told["id"] in self._alive:
            self._alive.discard(told["id"])
            self._take(Left(told["id"]))
        elif told["event"] == "word":
            try:
                said = self._decoder.decode(told["data"])
            except MALFORMED as error:
                log.warning(
                    "What %s says about %s is malformed: %s", told["id"], self._topic, error
                )
            else:
                self._take(Received(told["id"], said))

    def _arrived(self, id_: str) -> None:
        if id_ not in self._alive:
            self._alive.add(id_)
            self._take(Joined(id_))

    def _take(self, event: Any) -> None:
        with self._changed:
            actions = self._machine.handle(event, time.monotonic())
            for action in actions:
                if isinstance(action, Ignored):
                    log.warning(
                        "What %s says about %s: %s", action.peer, self._topic, action.sentence
                    )
                elif not isinstance(action, Send):
                    self._do(action)
            self._changed.notify_all()
        for action in actions:
            if isinstance(action, Send):
                data = msgspec.msgpack.encode(action.message)
                self._client.request("word", to=action.peer, topic=self._topic, data=data)

    def _do(self, action: Any) -> None:
        """With the lock."""

    # --- other threads --------------------------------------------------------------------------

    def _say(self, event: Any) -> None:
        """Has the machine take that in. Raises what it raises."""
        self._take(event)
        self._inbox.put(Tick())  # it may be due at another time

    def _wait(self, found: Callable[[], A | None], timeout: float | None, what: str) -> A:
        """Until something is found. Raises Timeout, MeshLost."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while (result := found()) is None:
                if self._is_over:
                    raise MeshLost(
                        f"The {self.kind} {self._topic!r} is closed, or the mesh was left."
                    )
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise Timeout(f"Waited {timeout:g} s in vain {what}.")
                self._changed.wait(left)
            return result


class Leadership(NamedTuple):
    """Who leads: the id of a peer, in which epoch, and whether it is this one."""

    leader: str
    epoch: int
    is_me: bool


class Leader(Coordinator[leader.Leadership]):
    """Which peer leads: of those that are alive the one with the lowest id."""

    kind = "leader"
    says = leader.Message

    def __init__(self, client: Client, name: str, me: str) -> None:
        super().__init__(client, name, lambda _: leader.Leadership(me))

    @property
    def now(self) -> Leadership | None:
        """None while that is not decided."""
        with self._changed:
            return self._now()

    def _now(self) -> Leadership | None:
        found, epoch = self._machine.leader, self._machine.epoch
        return None if found is None else Leadership(found, epoch.number, found == self._machine.me)

    def wait(self, after: int = 0, timeout: float | None = None) -> Leadership:
        """Until it is decided who leads, in an epoch later than that. Raises Timeout."""

        def later() -> Leadership | None:
            now = self._now()
            return None if now is None or now.epoch <= after else now

        return self._wait(later, timeout, f"for a leader in an epoch after {after}")


class Done(NamedTuple):
    """Who has done an item, in which run of it (from 1 on), and what came of it."""

    worker: str
    run: int
    result: Any


class Item(NamedTuple):
    """To be done here. If `run` is above 1, it may have been done before, wholly or in part, by a
    peer that was lost."""

    number: int
    run: int


class Sharing(Coordinator[stealing.Stealing]):
    """Items that peers divide among themselves; who has none left takes some of another's."""

    kind = "sharing"
    says = stealing.News

    def __init__(
        self, client: Client, name: str, me: str, items: int, owners: Sequence[str]
    ) -> None:
        self.owners = tuple(owners)
        """Among whom the items were divided at first."""
        self._run_here: stealing.Run | None = None
        self._is_finished = False
        super().__init__(
            client, name, lambda alive: stealing.Stealing(me, items, self.owners, alive)
        )

    @property
    def _known(self) -> list[str]:
        return []  # it was made with them

    def close(self) -> None:
        """Takes no part any more, once all others have heard what is done, or after 3 s."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over or self._machine.due is None, LINGER)
        super().close()

    def _do(self, action: stealing.Action) -> None:
        if isinstance(action, stealing.Run):
            self._run_here = action
        elif isinstance(action, stealing.Finished):
            self._is_finished = True

    def items(self, timeout: float | None = None) -> Iterator[Item]:
        """What this peer is to do, one after another, until all are done by anybody. Each is
        `done` before the next one. Raises Timeout."""
        while (item := self._wait(self._next_item, timeout, "for an item")) != _NO_ITEM:
            yield item

    def _next_item(self) -> Item | None:
        if self._run_here is not None:
            return Item(self._run_here.item, self._run_here.run)
        return _NO_ITEM if self._is_finished else None

    def done(self, item: Item, result: Any = None) -> None:
        """The item is done. Its result, encoded, has 1 KiB at most: all peers keep it. Raises
        ValueError."""
        data = encode(result).to_bytes()
        if len(data) > stealing.MOST_RESULT:
            raise ValueError(
                f"The result of item {item.number} has {len(data):,} bytes: give up to "
                f"{stealing.MOST_RESULT:,}, and keep more elsewhere."
            )
        with self._changed:
            if self._run_here is None or self._run_here.item != item.number:
                raise ValueError(f"Item {item.number} is not being done here.")
            self._run_here = None
        self._say(stealing.Completed(item.number, data))

    def wait(self, timeout: float | None = None) -> list[Done]:
        """Until all items are done: by whom, and what came of them, by their numbers. Raises
        Timeout."""
        self._wait(lambda: self._is_finished or None, timeout, "for all items to be done")
        with self._changed:
            rows = list(self._machine.rows)
        return [Done(row.owner, row.run, decode(row.result)) for row in rows]


_NO_ITEM = Item(-1, 0)


class Part(NamedTuple):
    """Of the work of another peer, by its id: so many units are to be done here."""

    manager: str
    work: str
    number: int
    units: int


class Outcome(NamedTuple):
    """Of a work: how many of its units are done, for how many nobody had room, and how many were
    handed out anew as who had them was lost."""

    done: int
    unplaced: int
    again: int


class Market(Coordinator[negotiation.Negotiation]):
    """Where work is handed out to those that offer capacity for it."""

    kind = "market"
    says = negotiation.Message

    def __init__(self, client: Client, name: str, me: str, capacity: int) -> None:
        self._parts: dict[tuple[str, int], Part] = {}
        """That are to be begun here."""
        self._wanted: set[tuple[str, int]] = set()
        """Those and the ones under way."""
        self._again: dict[str, int] = {}
        self._ended: dict[str, Outcome] = {}
        super().__init__(client, name, lambda _: negotiation.Negotiation(me, capacity))

    def _do(self, action: negotiation.Action) -> None:
        match action:
            case negotiation.Begin(manager, work, number, units):
                self._wanted.add((manager, number))
                self._parts[manager, number] = Part(manager, work, number, units)
            case negotiation.Cancel(manager, number):
                self._wanted.discard((manager, number))
                self._parts.pop((manager, number), None)
            case negotiation.Again(work, _, units):
                self._again[work] = self._again.get(work, 0) + units
            case negotiation.Ended(work, done, unplaced):
                self._ended[work] = Outcome(done, unplaced, self._again.pop(work, 0))

    def offer(self, work: str, units: int) -> None:
        """Hands so many units of a work out to the others; `outcome` says what became of them.
        Raises ValueError."""
        with self._changed:
            self._say(negotiation.Offered(work, units))
            self._ended.pop(work, None)

    def outcome(self, work: str, timeout: float | None = None) -> Outcome:
        """Until the work is over. Raises Timeout."""
        what = f"for the work {work!r:.60} to end"
        return self._wait(lambda: self._ended.get(work), timeout, what)

    def parts(self, timeout: float | None = None) -> Iterator[Part]:
        """What this peer is to do of others' works, as it comes; each is to be `done`. Ends after
        `timeout` seconds without any."""
        while True:
            try:
                yield self._wait(self._next_part, timeout, "for a part")
            except Timeout:
                return

    def _next_part(self) -> Part | None:
        if not self._parts:
            return None
        return self._parts.pop(next(iter(self._parts)))

    def is_wanted(self, part: Part) -> bool:
        """False once its manager has left or died, or has given it to another."""
        with self._changed:
            return (part.manager, part.number) in self._wanted

    def done(self, part: Part) -> None:
        """The part is done."""
        with self._changed:
            self._wanted.discard((part.manager, part.number))
        self._say(negotiation.Completed(part.manager, part.number))
