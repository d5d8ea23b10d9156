"""Requests that survive a restart of the manager, and the large values that go with them."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from msgspec import msgpack

from manta.apis.aio.waiting import TICK, in_thread, outcome, pause
from manta.apis.connect.patience import Patience
from manta.apis.connect.session import NotSent, Session, Stalled
from manta.apis.errors import (
    ConnectionFailed,
    Incomplete,
    ManagerFault,
    NoAnswer,
    RequestRefused,
)
from manta.protocol.codes import Code
from manta.protocol.sign_in import Bind, SignedIn, WhoAmI
from manta.protocol.states import SwarmState
from manta.protocol.user import (
    MOST_BLOBS,
    EventItem,
    FeedItem,
    FeedName,
    FeedPage,
    FindMissingBlobs,
    LogItem,
    MetricsItem,
    MissingBlobs,
    Plan,
    Planned,
    ReadFeed,
    ResultItem,
    SwarmInfo,
    WaitSwarm,
)
from manta.protocol.values import BlobRef, Inline, Payload

if TYPE_CHECKING:
    from collections.abc import Mapping
    from concurrent.futures import Future

    from manta.protocol.node import Message
    from manta.protocol.user import CheckSwarm, ExplainSwarm
    from manta.transports.codec.values import Encoded

PATIENCE = 60.0
"""Seconds to wait for a manager that was reachable before."""
ANSWER = 30.0
"""Seconds to wait for an answer."""
LONG_POLL = 20.0
AVAILABLE = 5.0
"""Seconds in which a manager that is available connects, and again in which it answers."""
TRANSFER = 600.0
"""Seconds after which an unfinished transfer is given up."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0

FEEDS: dict[type[Any], FeedName] = {
    EventItem: "events",
    LogItem: "logs",
    MetricsItem: "metrics",
    ResultItem: "results",
}

Reply = TypeVar("Reply")
Fed = TypeVar("Fed", bound=FeedItem)
Item = TypeVar("Item")


class Paged(Protocol):
    @property
    def more(self) -> bool: ...


class Revised(Protocol):
    @property
    def revision(self) -> str: ...


Page = TypeVar("Page", bound=Paged)
Watched = TypeVar("Watched", bound=Revised)


class AsyncConnection:
    """One user's connection to one manager, opened by the first request.

    One that is dropped without `close` closes its session, with a ResourceWarning.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._who: SignedIn | None = None
        self._dropped = weakref.finalize(self, session.drop)
        self._dropped.atexit = False

    async def close(self) -> None:
        self._dropped.detach()
        await in_thread(self.session.close)

    async def is_available(self) -> bool:
        """Whether the manager answers at all, be it with a refusal."""
        up = self.session.up(AVAILABLE)
        try:
            await outcome(up)
            await outcome(self.session.ask(WhoAmI(), AVAILABLE))
        except (ConnectionFailed, ManagerFault):
            return False
        except RequestRefused:
            pass
        return True

    async def who(self) -> SignedIn:
        """Returns who this key belongs to; binds the token to it if there is one."""
        if self._who is None:
            token = self.session.target.token
            message = Bind(token) if token else WhoAmI()
            self._who = await self._ask(message, SignedIn, again=True)
        return self._who

    async def ask(
        self,
        message: Message,
        reply: type[Reply],
        *,
        again: bool = False,
        wait: float = 0.0,
        blobs: Mapping[str, Encoded] | None = None,
    ) -> Reply:
        """Sends a request and returns its answer.

        When the manager restarts, a request that was not sent is sent again; one that was sent
        but not answered is repeated only if `again` allows it. `wait` is how many seconds the
        manager may hold the request. `blobs` are those that the message names: if the manager was
        restarted since they were pushed, it does not know any more who sent them, and they are
        pushed again. Raises ConnectionFailed or RequestRefused.
        """
        await self.who()
        try:
            return await self._ask(message, reply, again=again, wait=wait)
        except ManagerFault as error:
            if not blobs or error.code != Code.BLOB_MISSING:
                raise
        await self.push(blobs)
        return await self._ask(message, reply, again=again, wait=wait)

    async def sign_in(self, message: Message) -> SignedIn:
        """Signs in; from then on this key belongs to the user in the answer."""
        self._who = await self._ask(message, SignedIn)
        return self._who

    async def _ask(
        self, message: Message, reply: type[Reply], *, again: bool = False, wait: float = 0.0
    ) -> Reply:
        patience, delay = Patience(PATIENCE), FIRST_PAUSE
        while True:
            await self._up(patience)
            try:
                answer = await outcome(self.session.ask(message, ANSWER + wait))
            except NotSent as error:
                failure: Exception = error
            except NoAnswer as error:
                if not again:
                    raise
                failure = error
            except ManagerFault as error:
                if error.code != Code.UNAVAILABLE:
                    raise
                failure = error
            else:
                assert isinstance(answer, reply)
                return answer
            patience.stood_still(ANSWER + wait)
            if delay > patience.left:
                raise failure
            await pause(delay)
            patience.stood_still(delay)
            delay = min(2 * delay, LONGEST_PAUSE)

    async def _up(self, patience: Patience) -> None:
        """Waits for the link. Raises at once when nobody answers and nobody ever has."""
        while True:
            limit = self.session.limit(patience.left)
            try:
                await outcome(self.session.up(patience.left))
            except ConnectionFailed:
                if not patience.stood_still(limit):
                    raise
            else:
                patience.stood_still(limit)
                return

    # --- lists ---------------------------------------------------------------------------

    async def listed(
        self,
        request: Callable[[str], Message],
        reply: type[Page],
        items: Callable[[Page], Sequence[Item]],
        key: Callable[[Item], str],
    ) -> list[Item]:
        """Reads a whole list page by page; `request` asks for what comes after a key."""
        found: list[Item] = []
        more = True
        while more:
            page = await self.ask(request(key(found[-1]) if found else ""), reply, again=True)
            found += items(page)
            more = page.more
        return found

    async def stream(
        self,
        listed: Iterable[Item],
        request: Callable[[str, float], Message],
        reply: type[Watched],
        items: Callable[[Watched], Iterable[Item]],
        key: Callable[[Item], str],
        like: Callable[[Item], object] = lambda item: item,
        *,
        follow: bool,
    ) -> AsyncIterator[Item]:
        """Yields what was listed and then, with `follow`, whatever changes, without end.

        `request` asks for what changed after a revision, to be answered within some seconds;
        `like` strips from an item what should not count as a change.
        """
        seen: dict[str, object] = {}
        for item in listed:
            seen[key(item)] = like(item)
            yield item
        if not follow:
            return
        revision = ""
        while True:
            asked = request(revision, LONG_POLL)
            page = await self.ask(asked, reply, again=True, wait=LONG_POLL)
            for item in items(page):
                if seen.get(key(item)) != like(item):
                    seen[key(item)] = like(item)
                    yield item
            revision = page.revision

    async def plan(self, request: CheckSwarm | ExplainSwarm) -> Plan:
        """Returns the plan, whatever its size."""
        planned = await self.ask(request, Planned, again=True)
        if planned.plan is not None:
            return planned.plan
        (load,) = await self.fetch([planned.blob])
        return await in_thread(lambda: msgpack.decode(load(), type=Plan))

    # --- feeds ---------------------------------------------------------------------------

    async def pages(
        self,
        swarm: str,
        feed: FeedName,
        *,
        tag: str | None = None,
        node: str | None = None,
        task: str | None = None,
        settled: bool = False,
        after: int = 0,
        follow: bool,
    ) -> AsyncIterator[FeedPage]:
        """Yields what a swarm has produced after a page's cursor so far; with `follow`, until the
        swarm ends.

        `settled`: results of attempts that have ended and count, as these end.
        """
        cursor, told = after, "" if follow and feed == "events" else None
        while True:
            wait = LONG_POLL if follow else 0.0
            request = ReadFeed(
                swarm,
                feed,
                cursor,
                wait=wait,
                tag=tag,
                node=node,
                task=task,
                settled=settled,
                told=told,
            )
            page = await self.ask(request, FeedPage, again=True, wait=wait)
            done = page.ended or (not follow and page.cursor == cursor)
            cursor, told = page.cursor, told if told is None else page.told
            if page.items or done:
                yield page
            if done:
                if not page.ended and not page.swarm.complete:
                    _warn(page)
                return

    async def end_of(self, swarm: str) -> None:
        """Returns once the swarm has ended."""
        ended = False
        while not ended:
            request = WaitSwarm(swarm, LONG_POLL)
            info = await self.ask(request, SwarmInfo, again=True, wait=LONG_POLL)
            ended = SwarmState(info.status).final

    async def items(
        self,
        swarm: str,
        kind: type[Fed],
        *,
        tag: str | None = None,
        node: str | None = None,
        task: str | None = None,
        follow: bool,
    ) -> AsyncIterator[Fed]:
        """Yields the same as `pages`, item by item."""
        pages = self.pages(swarm, FEEDS[kind], tag=tag, node=node, task=task, follow=follow)
        async for page in pages:
            for item in page.items:
                assert isinstance(item, kind)
                yield item

    # --- values --------------------------------------------------------------------------

    async def push(self, blobs: Mapping[str, Encoded]) -> None:
        """Sends the blobs that the manager lacks, in parallel."""
        if not blobs:
            return
        refs = tuple(BlobRef(digest, encoded.nbytes) for digest, encoded in blobs.items())
        missing: list[BlobRef] = []
        for start in range(0, len(refs), MOST_BLOBS):
            request = FindMissingBlobs(refs[start : start + MOST_BLOBS])
            missing += (await self.ask(request, MissingBlobs, again=True)).blobs
        if not missing:
            return
        bulk = (await self.who()).bulk_address
        await self._all(
            [partial(self.session.push, bulk, ref, blobs[ref.digest], TRANSFER) for ref in missing]
        )

    async def fetch(self, payloads: Iterable[Payload | None]) -> list[Any]:
        """Returns a function per payload that decodes it; large ones are fetched first."""
        wanted = list(payloads)
        bulk = ""
        if any(isinstance(payload, BlobRef) for payload in wanted):
            bulk = (await self.who()).bulk_address
        transfers = {
            position: partial(self.session.fetch, bulk, payload, TRANSFER)
            for position, payload in enumerate(wanted)
            if isinstance(payload, BlobRef)
        }
        buffers = await self._all(list(transfers.values()))
        arrived = dict(zip(transfers, buffers, strict=True))
        return [_decoder(arrived.get(position, payload)) for position, payload in enumerate(wanted)]

    async def _all(self, transfers: Sequence[Callable[[], Future[Any]]]) -> list[Any]:
        """Begins them and returns their results; after the first failure the others are cancelled.

        One that stalled because this process stood still meanwhile is begun again.
        """
        futures = [begin() for begin in transfers]
        known = [0] * len(futures)
        """How often this process had stood still when each was begun."""
        clock, stops = Patience(TRANSFER), 0

        def tick() -> None:
            nonlocal stops
            stops += clock.stood_still(TICK)

        results: list[Any] = []
        try:
            while len(results) < len(futures):
                at = len(results)
                tick()
                try:
                    results.append(await outcome(futures[at], tick))
                except Stalled:
                    tick()
                    if stops == known[at]:
                        raise
                    futures[at], known[at] = transfers[at](), stops
            return results
        finally:
            for future in futures:
                future.cancel()


def _warn(page: FeedPage) -> None:
    name = page.swarm.name
    sentence = f"What was read of swarm {name!r} is not complete yet: {page.swarm.reason}"
    warnings.warn(Incomplete(f"{sentence} Read it again in a moment."), stacklevel=4)


def _decoder(content: Any) -> Any:
    """Returns a function that decodes an Inline, a buffer, or None."""

    def load() -> Any:
        from manta.transports.codec.values import decode

        if content is None:
            return None
        # A writable copy, so that arrays are writable.
        return decode(bytearray(content.data) if isinstance(content, Inline) else content)

    return load
