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

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from manta.transports.errors import RemoteProtocolError
from manta.transports.exchange import keeping, messages
from manta.transports.exchange.arrivals import Arrivals
from manta.transports.exchange.broadcasts import Broadcasts, Said
from manta.transports.exchange.channels import Member
from manta.transports.exchange.kept import Kept
from manta.transports.exchange.letters import (
    Attempt,
    Letters,
    Remote,
    Shell,
    TooManyTags,
    Value,
    size_of,
)
from manta.transports.exchange.messages import Parcel
from manta.transports.exchange.waits import ROOM, Names, Outlook, Request, Wait, Waits

MOST_FLUSHES = 10_000
"""What a peer asks before it says what it knows."""
MOST_WANTS = 100
"""How often a peer says in an era, while its link is up, that nothing was heard there."""
MOST_KNOWN = 1_000
"""How often it says so what it knows."""


class Roster(Names, Protocol):
    """Who is in the group in its present era, and what becomes of them."""

    era: int

    def peers(self) -> Iterable[str]:
        """All other peers that have members in it."""

    def refusal(self, sender: Attempt, peer: str) -> str:
        """Why the attempt may not talk to that peer, or nothing."""

    def hears(self, task: str, peer: str, sender: Member) -> bool:
        """Whether members of a task on a peer hear what that sender broadcasts."""

    def is_there(self, member: Member, peer: str) -> bool:
        """Whether the member is on that peer."""

    def may_send(self, reader: Attempt, peer: str | None) -> bool:
        """Whether anybody, on that peer if one is named, may yet send what the reader waits for:
        the outlook has no error."""

    def of_letter(self, reader: Attempt, peer: str, tag: str) -> Outlook:
        """Of a wait for a letter from that peer."""

    def of_broadcast(self, reader: Attempt, tag: str) -> Outlook:
        """Of a wait for a broadcast."""

    def counted(self, at: Attempt) -> bool | None:
        """Whether an attempt that has ended counts; None while that is not certain. Of an era
        before that of the roster it is."""


class Group:
    def __init__(
        self,
        me: str,
        shell: Shell,
        roster: Roster,
        restored: Sequence[Kept] = (),
        *,
        is_final: bool = False,
    ) -> None:
        """`restored` is what was kept of attempts that ended before, those first that ended
        first: where one is of a later era than the roster, that era has begun. `is_final`: no
        attempt is made in the place of another, so what one has received is consumed."""
        self._me = me
        self._is_final = is_final
        self._shell = shell
        self._roster = roster
        self.letters = Letters(me, shell)
        self.broadcasts = Broadcasts(me, shell, lambda *at: self._roster.is_there(*at))
        self._waits = Waits(me, shell, lambda: self._roster)
        self.era = max([roster.era, *(kept.era for kept in restored)])
        self._live: set[Attempt] = set()
        self._introduced: dict[str, Counter[bool]] = {}
        """How often each peer has said, since its link came up, what it knows, with the wish to be
        told all and without."""
        self._arrivals = Arrivals(self._waits.flush)
        self._to_flush: dict[str, list[int]] = {}
        """What peers asked that have not said yet what they know."""
        self._ended: dict[Attempt, None] = {}
        """What they received is theirs, if they count, which is not certain yet."""
        self._in_vain: set[Attempt] = set()
        """Those of which something was kept, and which do not count: of this era, and of the one
        before, of which it may be on disk yet."""
        self.letters.era = self.era
        self.broadcasts.begin_era(self.era)
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
        for kept in restored:
            for value in keeping.restore_sent(self.letters, self.broadcasts, kept):
                self._shell.release(value)
        self.letters.forget_senders(self._me, self.era - 1)
        self.letters.forget_lost(self._roster.is_lost)

    # --- attempts ---------------------------------------------------------------------------

    def begin(self, at: Attempt) -> None:
        """Begins its era as well, if the roster has not."""
        self._begin_era(at.era)
        if at.era != self.era:
            return
        for former in [one for one in self._ended if one[:2] == at[:2] and one.number < at.number]:
            self._settle(former, counts=False)  # nobody was told of its end
            self._waits.look()
        self._live.add(at)

    def is_live(self, at: Attempt) -> bool:
        return at in self._live

    def end(self, at: Attempt, *, counts: bool) -> Kept | None:
        """Its waits fail, and, unless it counts, others are given what it received.

        If it counts it returns what must be on disk before anybody is told so. What it received
        is nobody else's then until the roster says that it did count.
        """
        self._live.discard(at)
        for wait in self._waits.of(at):
            sentence = f"{at.member} was ended: it waits for nothing any more."
            self._waits.fail(wait, "SwarmStopped", sentence)
        kept = None
        if counts:
            kept = keeping.end_attempt(self.letters, self.broadcasts, at)
            if at in self.letters.claiming:
                self._ended[at] = None
                self._judge()
        else:
            self.letters.fail_attempt(at)
        self._waits.look()
        return kept

    def still(self, kept: Kept) -> Kept | None:
        """What of that is needed yet."""
        stands = keeping.attempt_of(kept) not in self._in_vain
        return keeping.still(self.letters, self.broadcasts, kept, stands=stands)

    def _judge(self) -> None:
        """Settles what those have received who are now known to count, or not to."""
        for at in list(self._ended):
            counts = self._roster.counted(at)
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
        size, flow = size_of(value), self.letters.flow

        def attempt() -> bool:
            if not flow.has_room(at.member, to, size):
                return False
            try:
                self.letters.send(at, to, tag, value)
            except TooManyTags as error:
                request.fail("ResourceExhaustionError", str(error))
                return True
            request.answer(None)
            self._arrivals.sent(to)
            if to == self._me:
                self._waits.wake("letter", to, tag)
            return True

        def outlook() -> Outlook:
            why = flow.refusal(at.member, to, size) or "has not said yet that it has room"
            return Outlook("", f"{self._roster.name(to)} {why}")

        wait = Wait(
            request,
            at,
            timeout,
            now + timeout,
            (ROOM, to, str(at.member)),
            attempt,
            outlook,
            lambda: True,
            late="ReceiverFull",
            peer=to,
        )
        self._begin(wait)

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
        if self._is_final and not self.letters.consume(at, source, tag, number):
            request.answer(None)  # another thread has received it meanwhile
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

        wait = Wait(
            request,
            at,
            timeout,
            now + timeout,
            ("letter", source, tag),
            attempt,
            lambda: self._roster.of_letter(at, source, tag),
            lambda: self._roster.may_send(at, source),
            peer=source,
            sources=lambda: (source,),
        )
        self._begin(wait)
        self._waits.wake_senders()

    def give_back(self, at: Attempt, source: str, tag: str, received: int) -> None:
        """The attempt was given only the first of the letters that it asked for."""
        self.letters.give_back(at, source, tag, received)
        self._waits.wake("letter", source, tag)
        self._waits.wake_senders()

    def broadcast(self, at: Attempt, tag: str, value: Value) -> None:
        """Raises TooMuchSaid."""
        member = at.member
        self.broadcasts.say(
            at, tag, value, lambda peer: self._roster.hears(member.task, peer, member)
        )
        self._arrivals.sent_to_all()
        self._waits.wake("broadcast", tag)

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

        wait = Wait(
            request,
            at,
            timeout,
            now + timeout,
            ("broadcast", tag),
            attempt,
            lambda: self._roster.of_broadcast(at, tag),
            lambda: self._roster.may_send(at, None),
            sources=lambda: self._roster.peers(),
        )
        self._begin(wait)

    # --- what others have -------------------------------------------------------------------

    def lacking(self) -> set[str]:
        """The other peers that have not said that all has come which they were sent so far. They
        are asked to, as soon as they are told all of it."""
        up, others = self._waits.up, self._arrivals.lacking(self._roster.peers())
        for peer in sorted(others & up):
            if self.letters.has_heard(peer):
                self._arrivals.flush(peer)
        return {peer for peer in others if peer in up or any(self._sent_to(peer))}

    def sent(self) -> Iterator[tuple[str, Parcel]]:
        """The large values that other peers may ask for, each with one of those peers."""
        for peer in self._roster.peers():
            values = self._sent_to(peer)
            yield from ((peer, value) for value in values if isinstance(value, Parcel))

    def _sent_to(self, peer: str) -> Iterator[Value]:
        if (outbox := self.letters.outboxes.get(peer)) is not None:
            yield from outbox.values()
        yield from self.broadcasts.heard(self._heard_by(peer))

    def lose(self, value: Remote) -> None:
        """The peer that held a value has it no more: who asks for it waits for a later one."""
        self.letters.lose(value)
        self.broadcasts.lose(value)

    def abandon(self, request: Request) -> bool:
        """Nobody waits for the answer any more; a letter that it claimed stays claimed. Whether it
        was waited for."""
        return self._waits.abandon(request)

    # --- peers and the roster ---------------------------------------------------------------

    def link_up(self, peer: str, *, wants: bool = False) -> None:
        """With `wants`, the link has been up for a while, and what the peer said was not heard."""
        self._waits.up.add(peer)
        self._introduced.pop(peer, None)
        self._introduce(peer, wants=wants)
        self._waits.look()

    def _introduce(self, peer: str, *, wants: bool) -> None:
        """Tells a peer what is here, and what is there for it."""
        self.letters.link_up(peer, wants=wants)
        self.broadcasts.link_up(peer, self._heard_by(peer))

    def _heard_by(self, peer: str) -> Callable[[Member], bool]:
        roster = self._roster
        return lambda sender: roster.hears(sender.task, peer, sender)

    def link_down(self, peer: str) -> None:
        self._waits.up.discard(peer)
        self._to_flush.pop(peer, None)
        self._arrivals.forget(peer)
        self.letters.link_down(peer)
        self.broadcasts.link_down(peer)
        self._waits.forget_flushes(peer)
        self._waits.look()

    def peer_removed(self, peer: str) -> None:
        """It will not come back: nothing is kept for it."""
        self.letters.peer_removed(peer)
        self.link_down(peer)

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
                    self._waits.wake("broadcast", tag)
            case messages.Flush(number):
                waiting = self._to_flush.setdefault(peer, [])
                if len(waiting) >= MOST_FLUSHES:
                    raise RemoteProtocolError("it asks much, and does not say what it knows")
                waiting.append(number)
                self._answer_flushes(peer)
            case messages.Flushed(number):
                self._waits.flushed(peer, number)
                self._arrivals.flushed(peer, number)
            case _:
                if isinstance(message, messages.Known) and message.is_last:
                    self._is_introduced(peer, wants=message.wants)
                self.letters.handle(peer, message)
                self._answer_flushes(peer)
                if isinstance(message, messages.SentLetter):
                    self._waits.wake("letter", peer, message.tag)
                elif isinstance(message, messages.Granted | messages.Consumed | messages.Known):
                    self._waits.wake_senders()

    def _is_introduced(self, peer: str, *, wants: bool) -> None:
        """Raises RemoteProtocolError: each time may cost all that is kept here for that one."""
        said = self._introduced.setdefault(peer, Counter())
        said[wants] += 1
        if said[wants] > (MOST_WANTS if wants else MOST_KNOWN):
            raise RemoteProtocolError("it asks again and again for what it was told")
        if not wants:
            return
        self._introduce(peer, wants=False)
        self._arrivals.forget(peer)
        self._waits.forget_flushes(peer)
        self._waits.look()

    def roster_changed(self, roster: Roster) -> None:
        """Also called for a new era, once all attempts of the one before that count have ended."""
        self._roster = roster
        self._begin_era(roster.era)
        self._judge()
        self.broadcasts.look()
        for peer in self._waits.up:
            self.broadcasts.tell_news(peer, self._heard_by(peer))
        self._waits.look()

    def _begin_era(self, era: int) -> None:
        """What is left of those before is over: attempts that live on are being ended. Of those
        that have ended the roster says whether they count, once it is of a later era, too: this
        peer may have been away, and others have taken their places."""
        if era <= self.era:
            return
        former, self.era = self.era, era
        for at in [at for at in self._live if at.era < era]:
            self.end(at, counts=False)
        self._judge()
        self._in_vain = {at for at in self._in_vain if at.era == former}
        self._introduced.clear()
        self.letters.end_era(era - 1, self._roster.peers())
        self.letters.forget_lost(self._roster.is_lost)
        for tag in self.broadcasts.begin_era(era):
            self._waits.wake("broadcast", tag)

    def close(self) -> None:
        """Ends all waits, and releases all that is kept."""
        for wait in self._waits.all():
            self._waits.fail(wait, "SwarmStopped", "The swarm is over here: nothing is waited for.")
        self.letters.close()
        self.broadcasts.close()

    # --- waits ------------------------------------------------------------------------------

    @property
    def due(self) -> float | None:
        """When the first wait ends for want of time."""
        return self._waits.due

    def tick(self, now: float) -> None:
        self._waits.tick(now)

    def _begin(self, wait: Wait) -> None:
        if wait.at in self._live:
            self._waits.begin(wait)
        else:
            sentence = f"{wait.at.member} was ended: it waits for nothing any more."
            wait.request.fail("SwarmStopped", sentence)


def _nothing() -> None:
    pass
