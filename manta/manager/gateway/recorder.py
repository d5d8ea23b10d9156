"""Records in the manager's audit log what users do, as the table of routes has it.

Whoever did something is answered once the record is on the disk, or the disk takes none: then it
waits in memory, and the log of the manager says so. What is read or refused waits for nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from manta.actors import Actor, Refused, Reply
from manta.audit.anchors import record_of
from manta.audit.log import Then
from manta.audit.records import DONE, Head, Record
from manta.manager.auth.principals import Kind, Principal
from manta.manager.context import Context
from manta.manager.gateway.acts import LOOKS, READS, WINDOW, Acts
from manta.manager.gateway.described import described, name_of, of_answer, of_target
from manta.manager.gateway.forwarder import Forwarder
from manta.manager.gateway.part import Request
from manta.manager.store.records import UserRecord
from manta.protocol.audit import LogHead, TellLogHead
from manta.protocol.base import Message
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll
from manta.protocol.sign_in import Bind, SignedIn, SignIn
from manta.protocol.user import FeedPage, ReadFeed, Tasks
from manta.transports.interface import Link
from manta.transports.security.strangers import source_of

LOOK = WINDOW / 10
"""Seconds between looks at the sums."""
HEADS = 60.0
"""Seconds in which a node's log head is recorded once."""
_FORBIDDEN = (Code.FORBIDDEN, Code.NOT_SIGNED_IN)


class _Look(msgspec.Struct, frozen=True):
    """To this actor: it is time to look at the sums."""


class Noted(Reply):
    """A message of which something may be recorded, and the reply to it."""

    __slots__ = ("_defer", "_recorder", "message", "real", "source", "target", "who")

    def __init__(
        self,
        recorder: Recorder,
        message: Message,
        who: Principal,
        source: str,
        defer: Callable[[], Reply],
    ) -> None:
        super().__init__()
        self.message = message
        self.who = who
        self.source = source
        self.target: object = None
        self.real: Reply | None = None
        self._defer = defer
        self._recorder = recorder

    def defer(self) -> Reply:
        self.real = self._defer()
        return self

    def _deliver(self, value: Any, error: BaseException | None) -> None:
        self._recorder.answered(self, value, error)


class Recorder:
    """May be used from any thread. The actor passes what it receives to `handle` first."""

    def __init__(
        self,
        actor: Actor,
        context: Context,
        forwarder: Forwarder,
        users: dict[str, UserRecord],
    ) -> None:
        self._actor = actor
        self._log = context.audit
        self._forwarder = forwarder
        self._users = users
        self._acts = Acts()
        self._lock = threading.Lock()
        self._heads: dict[str, tuple[float, TellLogHead]] = {}
        """By node: its log's head that was recorded last, and when."""
        actor.after(LOOK, _Look())

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Look):
            return False
        self._actor.after(LOOK, _Look())
        clock = self._actor.clock
        with self._lock:
            due = self._acts.due(clock.now(), clock.wall())
        self._write(due)
        return True

    def end(self) -> None:
        clock = self._actor.clock
        with self._lock:
            rest = self._acts.rest(clock.now(), clock.wall())
        self._write(rest)

    # --- what users and strangers send ----------------------------------------------------

    def note(
        self, message: Message, kinds: frozenset[Kind], who: Principal, link: Link | None
    ) -> Noted | None:
        """None for a message of which nothing is ever recorded: what nodes tell has logs of its
        own."""
        if Kind.USER not in kinds and not isinstance(message, Enroll):
            return None
        source = source_of(link.peer_address) if link is not None else ""
        return Noted(self, message, who, source, self._actor.defer)

    def waits_for(self, noted: Noted | None) -> Callable[[], Reply]:
        """What the handler of the message defers its reply with."""
        if noted is None or type(noted.message) in LOOKS:
            return self._actor.defer
        return noted.defer

    def refused(self, noted: Noted, refusal: Refused) -> None:
        """Before anybody could answer it."""
        if type(noted.message) not in LOOKS or refusal.code in _FORBIDDEN:
            self._record(noted, None, refusal)

    def answered(self, noted: Noted, value: object, error: BaseException | None) -> None:
        def deliver(_: bool = True) -> None:
            assert noted.real is not None
            if error is not None:
                noted.real.fail(error)
            else:
                self._forwarder.answer(noted.real, value)

        if not self._record(noted, value, error, deliver):
            deliver()

    def _record(
        self,
        noted: Noted,
        answer: object,
        error: BaseException | None,
        then: Then | None = None,
    ) -> bool:
        """Whether `then` is called once it is on the disk."""
        message, who, clock = noted.message, noted.who, self._actor.clock
        outcome = DONE if error is None else str(getattr(error, "code", "unavailable"))
        about = self._about(noted, answer)
        name, whose = who.name, who.id
        if isinstance(answer, SignedIn):
            name, whose = answer.email, answer.user_id
        record = Record(clock.wall(), name_of(type(message)), name, outcome, about)
        is_stranger = who.kind is not Kind.USER and not (error is None and whose)
        now, is_read = clock.now(), type(message) in READS
        with self._lock:
            if is_read and error is None:
                items = _items(answer)
                if isinstance(message, ReadFeed) and not items:
                    return False
                records = self._acts.in_sum(record, whose, now, items)
            elif (
                is_read
                or type(message) in LOOKS
                or (is_stranger and error is not None)
                or (isinstance(message, Bind) and who.kind is Kind.USER)
            ):
                records = self._acts.in_sum(record, "" if is_stranger else whose, now)
            else:
                records = self._acts.each(record, "" if is_stranger else whose, now)
        waits = bool(records) and error is None and not is_read and then is not None
        self._write(records, then if waits else None)
        return waits

    def _about(self, noted: Noted, answer: object) -> dict[str, Any]:
        """Of strangers, nothing that they gave: it may be anything, and be meant for nobody."""
        message, who = noted.message, noted.who
        if isinstance(message, ReadFeed):
            return {**of_target(noted.target), "feed": message.feed, **_tag(message)}
        if type(message) in READS:
            return {**of_target(noted.target), **_tag(message)}
        about: dict[str, Any] = {}
        if who.kind is Kind.USER:
            about = described(message, noted.target)
            about["user_id"] = who.id
        elif noted.source:
            about["from"] = noted.source
        if isinstance(message, SignIn):
            email = message.email.strip().lower()
            if any(user.email == email for user in list(self._users.values())):
                about["account"] = email
        return {**about, **{k: v for k, v in of_answer(answer).items() if k not in about}}

    # --- what nodes tell of their logs ----------------------------------------------------

    def node_head(self, request: Request[TellLogHead, None]) -> None:
        """Keeps the head of a node's log, and answers with that of this one."""
        told, who, reply = request.message, request.who, request.defer()
        now, wall = self._actor.clock.now(), self._actor.clock.wall()
        at, last = self._heads.get(who.id, (None, None))
        if at is not None and now - at < HEADS:
            reply.set(self._own_head())
            return
        self._heads[who.id] = now, told
        whose = {"node_id": who.id, "node": who.name, "cluster_id": who.cluster_id}
        if last is not None and _went_back(last, told):
            about = {**whose, "number": told.number, "was": last.number, "key": told.key}
            self._write([Record(wall, "log-went-back", about=about)])
            self._actor.log.warning(
                "the audit log of node %s (%s) went back from record %d to %d: it was cut, made "
                "anew or is another copy",
                *(who.name, who.id, last.number, told.number),
            )
        record = record_of(wall, Head(told.number, told.digest), told.key, **whose)
        self._log.record(record, lambda _: reply.set(self._own_head()))

    def _own_head(self) -> LogHead:
        head = self._log.head
        return LogHead(head.number, head.digest, self._log.key.public)

    def _write(self, records: list[Record], then: Then | None = None) -> None:
        for record in records:
            self._log.record(record, then if record is records[-1] else None)


def _tag(message: object) -> dict[str, str]:
    tag = getattr(message, "tag", None)
    return {"tag": tag} if tag else {}


def _items(answer: object) -> int:
    match answer:
        case FeedPage(items=items):
            return len(items)
        case Tasks(tasks=tasks):
            return len(tasks)
    return 1


def _went_back(last: TellLogHead, told: TellLogHead) -> bool:
    if told.key != last.key:
        return False
    return told.number < last.number or (told.number == last.number and told.digest != last.digest)
