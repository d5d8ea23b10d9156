"""What the members of a group on one peer send to each other and wait for.

Theory of operation. The shell passes in requests of attempts, messages of peers, the state of
links, and the group's `Roster` whenever it changes; out come answers and failures of requests, and
messages. Every request is answered once. A wait ends

| when | with |
|---|---|
| what it waits for is there | an answer |
| nobody is left who could send it, and all that was sent has come | PeerLost, NothingSent |
| its time is over | Timeout, ReceiverFull |
| its attempt ends | SwarmStopped |

The machine knows no clock: `due` says when it wants `tick` to be called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import keeping, messages
from manta.transports.exchange.broadcasts import Broadcasts, Said
from manta.transports.exchange.channels import Member
from manta.transports.exchange.kept import Kept, KeptLetter
from manta.transports.exchange.letters import (
    Attempt,
    Letters,
    Remote,
    Shell,
    TooManyTags,
    Value,
    size_of,
)

MOST_FLUSHES = 10_000
"""What a peer asks before it says what it knows."""


class Request(Protocol):
    """What an attempt asks; answered once."""

    def answer(self, value: Value | None) -> None: ...

    def fail(self, kind: str, sentence: str) -> None:
        """`kind` is a name of manta.light.errors."""


class Outlook(NamedTuple):
    """Of a wait, if what has not come yet is left aside. `error` is a name of manta.light.errors
    if it can never end, else empty; `sentence` says so, or whom it waits for."""

    error: str
    sentence: str


class Roster(Protocol):
    """Who is in the group in its present era, and what becomes of them."""

    era: int

    def peers(self) -> Iterable[str]:
        """All other peers that have members in it."""

    def name(self, peer: str) -> str:
        """How users call it."""

    def refusal(self, sender: Attempt, peer: str) -> str:
        """Why the attempt may not talk to that peer, or nothing."""

    def hears(self, task: str, peer: str, sender: Member) -> bool:
        """Whether members of a task on a peer hear what that sender broadcasts."""

    def of_letter(self, reader: Attempt, peer: str, tag: str) -> Outlook:
        """Of a wait for a letter from that peer."""

    def of_broadcast(self, reader: Attempt, tag: str) -> Outlook:
        """Of a wait for a broadcast."""

    def counted(self, at: Attempt) -> bool | None:
        """Whether an attempt that has ended counts; None while that is not certain."""

    def is_lost(self, peer: str) -> bool:
        """Whether nothing will come from it any more in this era."""


@dataclass(eq=False)
class _Wait:
    request: Request
    at: Attempt
    timeout: float
    deadline: float
    topic: tuple[str, ...]
    attempt: Callable[[], bool]
    """Answers the request if that is possible now."""
    outlook: Callable[[], Outlook]
    late: str = "Timeout"
    peer: str = ""
    """Whom it is about, if it is one."""
    sources: Callable[[], Iterable[str]] = tuple
    """Who must have said that all has come which they sent, before nothing more is waited for."""
    flushed: set[str] = field(default_factory=set)


class Group:
    def __init__(
        self, me: str, shell: Shell, roster: Roster, restored: Sequence[Kept] = ()
    ) -> None:
        """`restored` is what was kept of attempts that ended before, those first that ended
        first."""
        self._me = me
        self._shell = shell
        self._roster = roster
        self.letters = Letters(me, shell)
        self.broadcasts = Broadcasts(me, shell)
        self._waits: dict[tuple[str, ...], dict[_Wait, None]] = {}
        """By topic, in the order in which they began."""
        self._by_request: dict[Request, _Wait] = {}
        self.era = roster.era
        self._live: set[Attempt] = set()
        self._up: set[str] = set()
        self._flushes: dict[int, tuple[str, _Wait]] = {}
        self._flush_count = 0
        self._to_flush: dict[str, list[int]] = {}
        """What peers asked that have not said yet what they know."""
        self._ended: dict[Attempt, None] = {}
        """What they received is theirs, if they count, which is not certain yet."""
        self._in_vain: set[Attempt] = set()
        """Those of this era of which something was kept, and which do not count."""
        self.letters.era = roster.era
        self.broadcasts.begin_era(roster.era)
        self._restore(restored)

    def _restore(self, restored: Sequence[Kept]) -> None:
        for kept in restored:
            if keeping.restore_received(self.letters, kept):
                self._ended[keeping.attempt_of(kept)] = None
        last = {(kept.era, kept.task, kept.rank): kept.number for kept in restored}
        for at in list(self._ended):
            if at.number < last[at.era, at.member.task, at.member.rank]:
                self._settle(at, counts=False)
        self._judge()
        items = (item for kept in restored for item in kept.items)
        others = {item.to for item in items if isinstance(item, KeptLetter)} - {self._me}
        lost = {peer for peer in others if self._roster.is_lost(peer)}
        for kept in restored:
            for value in keeping.restore_sent(self.letters, self.broadcasts, kept, lost):
                self._shell.release(value)
        self.letters.forget_senders(self._me, self._roster.era - 1)

    # --- attempts ---------------------------------------------------------------------------

    def begin(self, at: Attempt) -> None:
        """Begins its era as well, if the roster has not."""
        self._begin_era(at.era)
        if at.era != self.era:
            return
        for former in [one for one in self._ended if one[:2] == at[:2] and one.number < at.number]:
            self._settle(former, counts=False)  # nobody was told of its end
            self._look()
        self._live.add(at)

    def is_live(self, at: Attempt) -> bool:
        return at in self._live

    def end(self, at: Attempt, *, counts: bool) -> Kept | None:
        """Its waits fail, and, unless it counts, others are given what it received.

        If it counts it returns what must be on disk before anybody is told so. What it received
        is nobody else's then until the roster says that it did count.
        """
        self._live.discard(at)
        for wait in [wait for wait in self._by_request.values() if wait.at == at]:
            self._fail(
                wait, "SwarmStopped", f"{at.member} was ended: it waits for nothing any more."
            )
        kept = None
        if counts:
            kept = keeping.end_attempt(self.letters, self.broadcasts, at)
            if at in self.letters.claiming:
                self._ended[at] = None
                self._judge()
        else:
            self.letters.fail_attempt(at)
        self._look()
        return kept

    def still(self, kept: Kept) -> Kept | None:
        """What of that is needed yet."""
        stands = keeping.attempt_of(kept) not in self._in_vain
        return keeping.still(self.letters, self.broadcasts, kept, stands=stands)

    def _judge(self) -> None:
        """Settles what those have received who are now known to count, or not to."""
        for at in list(self._ended):
            counts = True if at.era < self.era else self._roster.counted(at)
            if counts is not None:
                self._settle(at, counts=counts)

    def _settle(self, at: Attempt, *, counts: bool) -> None:
        del self._ended[at]
        if not counts:
            self._in_vain.add(at)
            self._shell.settle(_nothing)  # or it would count after the era
        self.letters.settle(at, counts=counts)

    # --- requests ---------------------------------------------------------------------------

    def send(
        self,
        request: Request,
        at: Attempt,
        to: str,
        tag: str,
        value: Value,
        timeout: float,
        now: float,
    ) -> None:
        if refusal := self._roster.refusal(at, to):
            request.fail("UnknownPeer", refusal)
            return
        size = size_of(value)

        def attempt() -> bool:
            if not self.letters.has_room(at.member, to, size):
                return False
            try:
                self.letters.send(at, to, tag, value)
            except TooManyTags as error:
                request.fail("ResourceExhaustionError", str(error))
                return True
            request.answer(None)
            if to == self._me:
                self._wake("letter", to, tag)
            return True

        def outlook() -> Outlook:
            why = self.letters.refusal(at.member, to, size) or "has not said yet that it has room"
            return Outlook("", f"{self._roster.name(to)} {why}")

        topic = "room", to, str(at.member)
        due = now + timeout
        self._begin(_Wait(request, at, timeout, due, topic, attempt, outlook, "ReceiverFull", to))

    def receive(
        self,
        request: Request,
        at: Attempt,
        source: str,
        tag: str,
        number: int,
        timeout: float,
        now: float,
    ) -> None:
        if refusal := self._roster.refusal(at, source):
            request.fail("UnknownPeer", refusal)
            return
        claimed = self.letters.claims(at, source, tag)
        if number > claimed:
            sentence = f"Message {number} of {tag!r} was asked for before {claimed}."
            request.fail("RequestFailed", sentence)
            return

        def attempt() -> bool:
            try:
                letter = self.letters.receive(at, source, tag, number)
            except TooManyTags as error:
                request.fail("ResourceExhaustionError", str(error))
                return True
            if letter is None or letter.value is None:
                return False
            request.answer(letter.value)
            return True

        wait = _Wait(
            request,
            at,
            timeout,
            now + timeout,
            ("letter", source, tag),
            attempt,
            lambda: self._roster.of_letter(at, source, tag),
            peer=source,
            sources=lambda: (source,),
        )
        self._begin(wait)
        self._wake_senders()

    def give_back(self, at: Attempt, source: str, tag: str, received: int) -> None:
        """The attempt was given only the first of the letters that it asked for."""
        self.letters.give_back(at, source, tag, received)
        self._wake("letter", source, tag)
        self._wake_senders()

    def broadcast(self, at: Attempt, tag: str, value: Value) -> None:
        """Raises TooMuchSaid."""
        roster = self._roster
        task = at.member.task
        audience = [peer for peer in roster.peers() if roster.hears(task, peer, at.member)]
        self.broadcasts.say(at, tag, value, [peer for peer in audience if peer in self._up])
        self._wake("broadcast", tag)

    def get_broadcast(
        self, request: Request, at: Attempt, tag: str, timeout: float, now: float
    ) -> None:
        task = at.member.task

        def hears(said: Said) -> bool:
            return self._roster.hears(task, self._me, said.sender)

        def attempt() -> bool:
            said = self.broadcasts.latest(tag, hears)
            if said is None:
                return False
            request.answer(said.value)
            return True

        self._begin(
            _Wait(
                request,
                at,
                timeout,
                now + timeout,
                ("broadcast", tag),
                attempt,
                lambda: self._roster.of_broadcast(at, tag),
                sources=lambda: self._roster.peers(),
            )
        )

    def lose(self, value: Remote) -> None:
        """The peer that held a value has it no more: who asks for it waits for a later one."""
        self.letters.lose(value)
        self.broadcasts.lose(value)

    def abandon(self, request: Request) -> bool:
        """Nobody waits for the answer any more; a letter that it claimed stays claimed. Whether it
        was waited for."""
        wait = self._by_request.get(request)
        if wait is not None:
            self._remove(wait)
        return wait is not None

    # --- peers and the roster ---------------------------------------------------------------

    def link_up(self, peer: str, *, wants: bool = False) -> None:
        """With `wants`, the link has been up for a while, and what the peer said was not heard."""
        self._up.add(peer)
        self._introduce(peer, wants=wants)
        self._look()

    def _introduce(self, peer: str, *, wants: bool) -> None:
        """Tells a peer what is here, and what is there for it."""
        self.letters.link_up(peer, wants=wants)
        roster = self._roster
        self.broadcasts.link_up(peer, lambda sender: roster.hears(sender.task, peer, sender))

    def link_down(self, peer: str) -> None:
        self._up.discard(peer)
        self._to_flush.pop(peer, None)
        self.letters.link_down(peer)
        self._forget_flushes(peer)
        self._look()

    def _forget_flushes(self, peer: str) -> None:
        """What was asked may not have been heard."""
        for number, (of, _) in list(self._flushes.items()):
            if of == peer:
                del self._flushes[number]

    def _answer_flushes(self, peer: str) -> None:
        """All that was sent is told only to one that has said what it knows."""
        if self.letters.has_heard(peer):
            for number in self._to_flush.pop(peer, ()):
                self._shell.tell(peer, messages.Flushed(number))

    def handle(self, peer: str, message: messages.Message) -> None:
        """Raises RemoteProtocolError, for which the peer's link is to be cut."""
        match message:
            case messages.SentBroadcast():
                if tag := self.broadcasts.handle(peer, message):
                    self._wake("broadcast", tag)
            case messages.Flush(number):
                waiting = self._to_flush.setdefault(peer, [])
                if len(waiting) >= MOST_FLUSHES:
                    raise RemoteProtocolError("it asks much, and does not say what it knows")
                waiting.append(number)
                self._answer_flushes(peer)
            case messages.Flushed(number):
                self._flushed(number)
            case _:
                if isinstance(message, messages.Known) and message.wants:
                    self._introduce(peer, wants=False)
                    self._forget_flushes(peer)
                    self._look()
                self.letters.handle(peer, message)
                self._answer_flushes(peer)
                if isinstance(message, messages.SentLetter):
                    self._wake("letter", peer, message.tag)
                elif isinstance(message, messages.Granted | messages.Consumed):
                    self._wake_senders()

    def roster_changed(self, roster: Roster) -> None:
        """Also called for a new era, once all attempts of the one before that count have ended."""
        self._roster = roster
        self._begin_era(roster.era)
        self._judge()
        self._look()

    def _begin_era(self, era: int) -> None:
        """What is left of those before is over: attempts that live on are being ended."""
        if era <= self.era:
            return
        self.era = era
        for at in [at for at in self._live if at.era < era]:
            self.end(at, counts=False)
        self._ended.clear()
        self._in_vain.clear()
        self.letters.end_era(era - 1, self._roster.peers())
        for tag in self.broadcasts.begin_era(era):
            self._wake("broadcast", tag)

    def close(self) -> None:
        """Ends all waits, and releases all that is kept."""
        for wait in list(self._by_request.values()):
            self._fail(wait, "SwarmStopped", "The swarm is over here: nothing is waited for.")
        self.letters.close()
        self.broadcasts.begin_era(self.era + 1)

    # --- waits ------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the first wait ends for want of time."""
        return min((wait.deadline for wait in self._by_request.values()), default=None)

    def tick(self, now: float) -> None:
        for wait in [wait for wait in self._by_request.values() if wait.deadline <= now]:
            sentence = wait.outlook().sentence.rstrip(".")
            if wait.peer not in ("", self._me) and wait.peer not in self._up:
                sentence += f"; no link to {self._roster.name(wait.peer)} could be made"
            self._fail(wait, wait.late, f"Waited {wait.timeout:g} s in vain: {sentence}.")

    def _begin(self, wait: _Wait) -> None:
        if wait.at not in self._live:
            sentence = f"{wait.at.member} was ended: it waits for nothing any more."
            wait.request.fail("SwarmStopped", sentence)
        elif not wait.attempt():
            self._waits.setdefault(wait.topic, {})[wait] = None
            self._by_request[wait.request] = wait
            self._look_at(wait)

    def _wake(self, *topic: str) -> None:
        """Tries again those who wait for it."""
        for wait in list(self._waits.get(topic, ())):
            if wait.attempt():
                self._remove(wait)

    def _wake_senders(self) -> None:
        for topic in [topic for topic in self._waits if topic[0] == "room"]:
            self._wake(*topic)

    def _look(self) -> None:
        """Something has changed that any wait may depend on."""
        for wait in list(self._by_request.values()):
            if wait.attempt():
                self._remove(wait)
            else:
                self._look_at(wait)

    def _look_at(self, wait: _Wait) -> None:
        """Fails it if it can never end."""
        outlook = wait.outlook()
        if not outlook.error:
            wait.flushed.clear()
            return
        missing = [
            peer
            for peer in wait.sources()
            if peer not in wait.flushed and peer != self._me and not self._roster.is_lost(peer)
        ]
        asked = {peer for peer, of in self._flushes.values() if of is wait}
        for peer in missing:
            if peer in self._up and peer not in asked:
                self._flush_count += 1
                self._flushes[self._flush_count] = peer, wait
                self._shell.tell(peer, messages.Flush(self._flush_count))
        if not missing:
            self._fail(wait, *outlook)

    def _flushed(self, number: int) -> None:
        peer, wait = self._flushes.pop(number, ("", None))
        if wait is not None and wait.request in self._by_request:
            wait.flushed.add(peer)
            self._look_at(wait)

    def _fail(self, wait: _Wait, kind: str, sentence: str) -> None:
        self._remove(wait)
        wait.request.fail(kind, sentence)

    def _remove(self, wait: _Wait) -> None:
        del self._by_request[wait.request]
        same = self._waits[wait.topic]
        del same[wait]
        if not same:
            del self._waits[wait.topic]


def _nothing() -> None:
    pass
