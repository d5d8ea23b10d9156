"""Stores writes for other actors and answers when they are durable.

The StoreActor commits all writes that have gathered in its mailbox together, with one sync.
Each actor that writes has a `Writer`. It does not wait for the answer. If the StoreActor ends
before it has answered, the Writer sends the writes again to its successor, in the same order;
writes can be repeated, so it does not matter whether they had been committed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec

from manta.actors import Actor, ActorDead, Down, ExitReason, LocalRef, MailboxFull, MailboxPolicy
from manta.manager.errors import StorageUnavailable, StoreConflict, StoreError
from manta.manager.store.interface import RemoveSwarm, Store, Write

RETRY = 0.5
"""Seconds after which a write is sent again that the store could not take."""
PURGE_ROWS, PURGE_PAUSE = 200, 0.01
"""Rows at a time and seconds between, so that commits need not wait."""
PURGE_AGAIN = 30.0
"""Seconds after which it is tried again where it failed."""
TIDY_AFTER = 5.0
"""Seconds after a write until housekeeping."""
PROBE = 1.0
"""Seconds between looks at whether a store that could not be written can be: perhaps nobody writes
now, and users see the trouble until then."""


class Commit(msgspec.Struct, frozen=True):
    """Answered to `owner` with Committed."""

    owner: LocalRef
    ticket: int
    writes: tuple[Write, ...]


class Committed(msgspec.Struct, frozen=True):
    ticket: int
    error: StoreError | None = None
    """Why it was not carried out."""


class GetHealth(msgspec.Struct, frozen=True):
    """Asked; answered with "" or a sentence that says what is wrong."""


class _Flush(msgspec.Struct, frozen=True):
    pass


class _Purge(msgspec.Struct, frozen=True):
    pass


class _Tidy(msgspec.Struct, frozen=True):
    pass


class _Probe(msgspec.Struct, frozen=True):
    pass


class _Answer(msgspec.Struct, frozen=True):
    owner: LocalRef
    answer: Committed


class StoreActor(Actor):
    mailbox = MailboxPolicy(bound=100_000)

    def __init__(
        self,
        open_store: Callable[[], Store],
        workers: ThreadPoolExecutor,
        on_trouble: Callable[[str], object] = lambda _: None,
        on_stored: Callable[[Sequence[Write]], object] = lambda _: None,
    ) -> None:
        """`on_trouble` is called with what is wrong, and with "" once nothing is; `on_stored` with
        all writes that are durable, before their writers are answered."""
        self._open_store = open_store
        self._on_trouble = on_trouble
        self._on_stored = on_stored
        self._workers = workers
        self._untidy = False
        self._purging = False
        """Whether a _Purge is to come."""
        self._gathered: list[Commit] = []
        self._trouble = ""

    def on_start(self) -> None:
        self._store = self._open_store()
        self._purge_after(PURGE_PAUSE)

    def on_stop(self, reason: ExitReason) -> None:
        self._flush()
        self._store.close()

    def receive(self, message: object) -> object:
        match message:
            case Commit():
                # The flush comes after all that is in the mailbox by now, which is the group.
                if not self._gathered:
                    self.ref.tell(_Flush())
                self._gathered.append(message)
            case _Flush():
                self._flush()
            case _Answer(owner, answer):
                self._answer(owner, answer)
            case _Purge():
                self._purge()
            case _Tidy():
                self._untidy = False
                self._workers.submit(self._tidy, self._store)
            case _Probe():
                self._probe()
            case GetHealth():
                return self._trouble
            case _:
                return super().receive(message)
        return None

    def _flush(self) -> None:
        group, self._gathered = self._gathered, []
        if group and not self._commit(group):
            for commit in group:
                self._commit([commit])
        for commit in group:
            if any(isinstance(write, RemoveSwarm) for write in commit.writes):
                self._purge_after(PURGE_PAUSE)
        if group and not self._untidy and not self._trouble:
            self._untidy = True
            self.after(TIDY_AFTER, _Tidy())

    def _commit(self, group: list[Commit]) -> bool:
        """False if a write of the group cannot be carried out: it must not make others fail."""
        failure: StoreError | None = None
        try:
            self._store.commit([write for commit in group for write in commit.writes])
            self._note_success()
        except StorageUnavailable as error:
            self._note_trouble(error)
            failure = error
        except StoreError as error:  # a conflict, or what these writes touch is damaged
            if len(group) > 1:
                return False
            if not isinstance(error, StoreConflict):
                self._note_trouble(error)
            failure = error
        for commit in group:
            if failure is None:
                self._on_stored(commit.writes)
            self._answer(commit.owner, Committed(commit.ticket, failure))
        return True

    def _tidy(self, store: Store) -> None:
        """Runs on a worker."""
        try:
            store.tidy()
        except StoreError as error:
            self.log.warning("housekeeping failed, and is tried again later: %s", error)

    def _answer(self, owner: LocalRef, answer: Committed) -> None:
        try:
            owner.tell(answer)
        except ActorDead:
            self.log.debug("%s ended before its write was answered", owner.address)
        except MailboxFull:
            self.after(RETRY, _Answer(owner, answer))

    def _note_trouble(self, error: StoreError) -> None:
        if not self._trouble:
            self.after(PROBE, _Probe())
        if str(error) != self._trouble:
            self.log.error("%s", error)
            self._on_trouble(str(error))
        self._trouble = str(error)

    def _probe(self) -> None:
        if not self._trouble:
            return
        try:
            self._store.probe()
        except StoreError:
            self.after(PROBE, _Probe())
        else:
            self._note_success()

    def _note_success(self) -> None:
        if self._trouble:
            self.log.warning("the database can be written again")
            self._on_trouble("")
        self._trouble = ""

    def _purge_after(self, delay: float) -> None:
        if not self._purging:
            self._purging = True
            self.after(delay, _Purge())

    def _purge(self) -> None:
        self._purging = False
        try:
            more = self._store.purge(PURGE_ROWS)
        except StoreError as error:
            self.log.warning("removed swarms are not cleared away yet: %s", error)
            self._purge_after(PURGE_AGAIN)
            return
        if more:
            self._purge_after(PURGE_PAUSE)


@dataclass
class _Pending:
    writes: tuple[Write, ...]
    then: Callable[[StoreError | None], None]
    keep: bool
    told: bool = False
    """Whether `then` has heard that they cannot be stored."""


class _Resend(msgspec.Struct, frozen=True):
    writer: Writer


class Writer:
    """Writes to the store for one actor, which passes what it receives to `handle` first."""

    def __init__(self, actor: Actor, path: str) -> None:
        self._actor = actor
        self._path = path
        self._store: LocalRef | None = None
        self._tickets = 0
        self._pending: dict[int, _Pending] = {}
        self._waiting = False
        self._probe = 0
        """The ticket that was sent alone, to see whether the store can be written again."""
        self.trouble: StorageUnavailable | None = None
        """Why the last write was not carried out; None if it was."""
        self.unsettled: dict[tuple[int, Hashable], list[Any]] = {}
        """By table and key: the values that `Change`s under way have put there, in order."""

    @property
    def idle(self) -> bool:
        return not self._pending

    def write(
        self,
        *writes: Write,
        then: Callable[[StoreError | None], None],
        keep: bool = False,
    ) -> None:
        """Calls `then(None)` in the actor's thread once the writes are durable.

        Calls `then(error)` if they cannot be stored. With `keep` they are tried again, in
        order, until they are stored, and then `then(None)` is called as well; meanwhile each is
        told the first error that it meets, and the first of those that wait every one.
        """
        self._tickets += 1
        self._pending[self._tickets] = _Pending(writes, then, keep)
        if not self._waiting and not self._probe:
            self._send(self._tickets)

    def handle(self, message: object) -> bool:
        """Whether the message was for this writer."""
        match message:
            case Committed(ticket, None):
                self.trouble = None
                if pending := self._pending.pop(ticket, None):
                    self._repeat(ticket, pending.writes)
                    pending.then(None)
                if ticket == self._probe:
                    self._probe = 0
                    self._send_all()
            case Committed(ticket, StoreError() as error):
                self._not_committed(ticket, error)
            case Down(ref) if ref is self._store:
                self._store, self._probe = None, 0
                self._resend_after(0.0)
            case _Resend(writer) if writer is self:
                self._waiting = False
                if self.trouble is not None and self._pending:
                    # However many wait, one of them shows whether there is room again.
                    self._probe = next(iter(self._pending))
                    self._send(self._probe)
                else:
                    self._send_all()
            case _:
                return False
        return True

    def _repeat(self, ticket: int, writes: tuple[Write, ...]) -> None:
        """What was stored before something that came before it, and has to be kept, is stored with
        that once more: what came last is what stays."""
        for earlier, pending in self._pending.items():
            if earlier > ticket:
                return
            if pending.keep:
                pending.writes += writes

    def _send_all(self) -> None:
        for ticket in list(self._pending):
            if not self._waiting:
                self._send(ticket)

    def _not_committed(self, ticket: int, error: StoreError) -> None:
        pending = self._pending.get(ticket)
        if pending is None:
            return
        is_first = ticket == next(iter(self._pending))
        if isinstance(error, StorageUnavailable):
            self.trouble = error
        elif pending.keep and is_first:
            raise error  # none before it is missing, so our state differs from what is stored
        if pending.keep:
            self._resend_after(RETRY)
        else:
            del self._pending[ticket]
            if not self._pending:  # nothing shows when there is room again but the next write
                self.trouble = None
        if ticket == self._probe:
            self._probe = 0
            self._give_up(error)
        unavailable = isinstance(error, StorageUnavailable)
        if not pending.keep or (unavailable and (is_first or not pending.told)):
            pending.told = True
            pending.then(error)

    def _give_up(self, error: StoreError) -> None:
        """Those that need not be kept are not tried again. New ones may be among them."""
        given_up = [ticket for ticket, pending in self._pending.items() if not pending.keep]
        for one in [self._pending.pop(ticket) for ticket in given_up]:
            one.then(error)
        if self._pending:
            self._resend_after(RETRY)

    def _send(self, ticket: int) -> None:
        try:
            if self._store is None:
                self._store = self._actor.system.find(self._path)
                self._actor.monitor(self._store)
            writes = self._pending[ticket].writes
            self._store.tell(Commit(self._actor.ref, ticket, writes))
        except (ActorDead, MailboxFull):
            self._resend_after(RETRY / 10)

    def _resend_after(self, delay: float) -> None:
        if not self._waiting:
            self._waiting = True
            self._actor.after(delay, _Resend(self))
