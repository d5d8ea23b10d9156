"""Carries out plans: each step goes on as far as what it depends on is there.

A transfer or a reduction follows the bytes of its buffers, chunk by chunk, so that all steps of a
plan overlap. A buffer is written once and never used for anything else; a further plan may share
transfers with those before, which then just go on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from manta.transports.collectives.actions import Action, Cancel, Expect, Ready, Reduce, Send
from manta.transports.collectives.coverage import Coverage
from manta.transports.collectives.plans import (
    OUTCOME,
    Buffer,
    Plan,
    Reduction,
    Span,
    Transfer,
    whole,
)
from manta.transports.collectives.table import REDUCED


@dataclass
class _Sending:
    transfer: Transfer
    is_open: bool = False
    ready: int = 0


@dataclass
class _Receiving:
    transfer: Transfer
    received: int = 0


@dataclass
class _Reducing:
    reduction: Reduction
    issued: int = 0
    reduced: int = 0
    there: int = 0
    """The first so many sources have what is reduced next."""


@dataclass
class Flow:
    """The steps of one peer in one collective."""

    members: int
    """Of the task."""
    completed: Callable[[Buffer], object]
    """Is told of each buffer that becomes whole."""
    chunk: int = REDUCED
    sends: dict[str, _Sending] = field(default_factory=dict)
    """That have not arrived."""
    receives: dict[str, _Receiving] = field(default_factory=dict)
    """That have not arrived."""
    notes: list[bytes] = field(default_factory=list)
    """Of the reductions."""

    def __post_init__(self) -> None:
        self._there: dict[Buffer, Coverage] = defaultdict(Coverage)
        self._known: set[str | Reduction] = set()
        self._reducing: list[_Reducing] = []
        self._running: dict[int, tuple[_Reducing, int, int]] = {}
        self._number = 0
        self._permitted: set[tuple[int, str]] = set()
        self._open_to: set[int] = set()
        self._users: dict[Buffer, list[_Sending | _Reducing]] = defaultdict(list)
        self._sends_to: dict[int, dict[str, _Sending]] = defaultdict(dict)
        self._awaited: Counter[int] = Counter()
        """By peer: how many transfers are to come from it."""

    @property
    def is_reducing(self) -> bool:
        """Is there a reduction to an outcome that is not complete?"""
        return any(one.reduction.target.buffer.role == OUTCOME for one in self._reducing)

    @property
    def left(self) -> int:
        """How many steps are not complete."""
        return len(self.sends) + len(self.receives) + len(self._reducing)

    def missing(self, buffer: Buffer, start: int, stop: int) -> list[tuple[int, int]]:
        """What is not there between `start` and `stop`."""
        return self._there[buffer].missing(start, stop)

    def is_whole(self, buffer: Buffer) -> bool:
        return not self.missing(buffer, buffer.start, buffer.stop)

    def knows(self, key: str) -> bool:
        """Has a plan had this transfer?"""
        return key in self._known

    def awaits(self, peer: int) -> bool:
        """Is anything to come from this peer?"""
        return self._awaited[peer] > 0

    # What is to be done.

    def adopt(self, plan: Plan) -> list[Action]:
        """Adds what is new in the plan."""
        actions: list[Action] = []
        for transfer in plan.receives:
            if self._is_new(transfer.key):
                self.receives[transfer.key] = _Receiving(transfer)
                self._awaited[transfer.peer] += 1
                actions.append(Expect(transfer))
        for transfer in plan.sends:
            if self._is_new(transfer.key):
                sending = _Sending(transfer)
                self.sends[transfer.key] = sending
                self._sends_to[transfer.peer][transfer.key] = sending
                self._users[transfer.span.buffer].append(sending)
                actions += self._send(sending)
        for reduction in plan.reductions:
            if self._is_new(reduction):
                reducing = _Reducing(reduction)
                self._reducing.append(reducing)
                for buffer in dict.fromkeys(source.buffer for source in reduction.sources):
                    self._users[buffer].append(reducing)
                actions += self._reduce(reducing)
        return actions

    def _is_new(self, step: str | Reduction) -> bool:
        if step in self._known:
            return False
        self._known.add(step)
        return True

    def permit(self, peer: int, key: str) -> list[Action]:
        """The peer has a buffer for this transfer to it."""
        self._permitted.add((peer, key))
        return self._send(self.sends[key]) if key in self.sends else []

    def open_to(self, peer: int) -> list[Action]:
        """This peer has buffers for all that the plan sends to it."""
        if peer in self._open_to:
            return []
        self._open_to.add(peer)
        return [action for one in self._sends_to[peer].values() for action in self._send(one)]

    @property
    def planned(self) -> int:
        """How many steps there were in all plans."""
        return len(self._known)

    @property
    def permitted(self) -> int:
        """How many transfers were permitted one by one."""
        return len(self._permitted)

    def drop(self, is_stale: Callable[[Transfer], bool]) -> list[Action]:
        """Gives up transfers, and reductions to outcomes."""
        sends = [one for one in self.sends.values() if is_stale(one.transfer)]
        actions = self._drop_sends(sends)
        receives = [one for one in self.receives.values() if is_stale(one.transfer)]
        for one in receives:
            self._no_longer_awaits(one.transfer)
            actions.append(Cancel(one.transfer.key))
        return actions

    def drop_to(self, peer: int) -> list[Action]:
        """Gives up what is to go to this peer."""
        return self._drop_sends(list(self._sends_to[peer].values()))

    def _drop_sends(self, stale: Iterable[_Sending]) -> list[Action]:
        actions: list[Action] = []
        for one in stale:
            key = one.transfer.key
            del self.sends[key], self._sends_to[one.transfer.peer][key]
            if one.is_open:
                actions.append(Cancel(key))
        return actions

    def _no_longer_awaits(self, transfer: Transfer) -> None:
        del self.receives[transfer.key]
        self._awaited[transfer.peer] -= 1

    def close(self) -> None:
        """Forgets what is there: nothing depends on it any more."""
        self._there.clear()
        self._users.clear()
        self._known.clear()
        self._reducing.clear()
        self._running.clear()
        self._permitted.clear()
        self._sends_to.clear()
        self.notes.clear()

    def drop_reductions(self, roles: Iterable[str]) -> None:
        stale = [one for one in self._reducing if one.reduction.target.buffer.role in roles]
        for one in stale:
            self._reducing.remove(one)
        self._running = {
            number: run for number, run in self._running.items() if run[0] not in stale
        }
        for users in self._users.values():
            users[:] = [user for user in users if user not in stale]
        self.notes.clear()

    def forget(self, role: str) -> list[Buffer]:
        """What is there of buffers of this role is so no longer. Returns them."""
        found = [buffer for buffer in self._there if buffer.role == role]
        for buffer in found:
            del self._there[buffer]
        return found

    # What has happened.

    def filled(self, span: Span) -> list[Action]:
        """The bytes of the span are there."""
        self._there[span.buffer].add(span.start, span.stop)
        if self._reach(whole(span.buffer)) == span.buffer.size:
            self.completed(span.buffer)
        actions: list[Action] = []
        for user in list(self._users[span.buffer]):
            actions += self._send(user) if isinstance(user, _Sending) else self._reduce(user)
        return actions

    def received(self, key: str, upto: int) -> list[Action]:
        """The first `upto` bytes of the transfer have come."""
        receiving = self.receives.get(key)
        if receiving is None or upto <= receiving.received:
            return []
        span = receiving.transfer.span
        if upto > span.stop - span.start:
            raise ValueError(f"{upto} bytes of {key} have come.")
        part = Span(span.buffer, span.start + receiving.received, span.start + upto)
        receiving.received = upto
        if part.stop == span.stop:
            self._no_longer_awaits(receiving.transfer)
        return self.filled(part)

    def sent(self, key: str) -> None:
        """All of the transfer has arrived."""
        sending = self.sends.pop(key, None)
        if sending is not None:
            del self._sends_to[sending.transfer.peer][key]
            self._users[sending.transfer.span.buffer].remove(sending)

    def reduced(self, number: int, note: bytes = b"") -> list[Action]:
        if number not in self._running:  # given up since
            return []
        reducing, start, stop = self._running.pop(number)
        if note:
            self.notes.append(note)
        reducing.reduced += stop - start
        target = reducing.reduction.target
        if reducing.reduced == target.stop - target.start:
            self._reducing.remove(reducing)
        return self.filled(Span(target.buffer, target.start + start, target.start + stop))

    # How far each step can go.

    def _reach(self, span: Span) -> int:
        """How many bytes of the span are there, from its start on."""
        return min(self._there[span.buffer].reach(span.start), span.stop) - span.start

    def _send(self, sending: _Sending) -> list[Action]:
        transfer = sending.transfer
        permit = transfer.peer, transfer.key
        if transfer.peer not in self._open_to and permit not in self._permitted:
            return []
        ready = self._reach(transfer.span)
        if ready <= sending.ready or transfer.key not in self.sends:
            return []
        actions: list[Action] = [] if sending.is_open else [Send(transfer)]
        sending.is_open, sending.ready = True, ready
        return [*actions, Ready(transfer.key, ready)]

    def _reduce(self, reducing: _Reducing) -> list[Action]:
        target, sources = reducing.reduction
        length = target.stop - target.start
        actions: list[Action] = []
        while reducing.issued < length:
            start = reducing.issued
            stop = min(start + self.chunk, length)
            # So each source is looked at once for a range, however many there are.
            while reducing.there < len(sources) and self._reach(sources[reducing.there]) >= stop:
                reducing.there += 1
            if reducing.there < len(sources):
                break
            reducing.issued, reducing.there = stop, 0
            self._number += 1
            self._running[self._number] = reducing, start, stop
            pieces = tuple(_cut(source, start, stop) for source in sources)
            count = 0 if target.buffer.is_interim else self.members - len(target.buffer.lost)
            actions.append(Reduce(self._number, _cut(target, start, stop), pieces, count))
        return actions


def _cut(span: Span, start: int, stop: int) -> Span:
    return Span(span.buffer, span.start + start, span.start + stop)
