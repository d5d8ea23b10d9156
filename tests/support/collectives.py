"""Runs a collective on a whole set of peers in one process, in any order of delivery.

Values are bytes. A reduction here is a fold that neither commutes nor associates, so that what
comes out tells the order in which it was done.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from manta.transports.collectives.actions import (
    Cancel,
    Close,
    Deliver,
    Expect,
    Fail,
    Forget,
    Outcome,
    Ready,
    Reduce,
    Send,
    Store,
    Tell,
)
from manta.transports.collectives.calls import Entry, Kind, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.holder import Holder
from manta.transports.collectives.messages import Announcement, Probe, Relayed
from manta.transports.collectives.planner import ridden
from manta.transports.collectives.plans import OUTCOME, SHARE, VALUE, Buffer, Span


def folded(itemsize: int, parts: Sequence[bytes], *, final: bool) -> bytes:
    modulus = 1 << (8 * itemsize)
    out = bytearray()
    for at in range(0, len(parts[0]), itemsize):
        items = [int.from_bytes(part[at : at + itemsize], "little") for part in parts]
        total = items[0]
        for item in items[1:]:
            total = (3 * total + 5 * item + 1) % modulus
        out += ((total + final) % modulus).to_bytes(itemsize, "little")
    return bytes(out)


@dataclass
class Sender:
    to: int
    span: Span
    ready: int = 0


@dataclass
class Receiver:
    span: Span
    received: int = 0


@dataclass
class Peer:
    machine: Collective | Holder
    memory: dict[Buffer, bytearray] = field(default_factory=dict)
    sending: dict[str, Sender] = field(default_factory=dict)
    expected: dict[str, Receiver] = field(default_factory=dict)
    cancelled: set[str] = field(default_factory=set)
    reductions: list[Reduce] = field(default_factory=list)
    delivered: dict[int, list[Outcome]] = field(default_factory=dict)
    failed: dict[int, tuple[str, str]] = field(default_factory=dict)
    is_closed: bool = False

    def bytes_of(self, span: Span) -> memoryview:
        memory = self.memory.setdefault(span.buffer, bytearray(span.buffer.size))
        first = span.buffer.start
        assert first <= span.start <= span.stop <= span.buffer.stop
        return memoryview(memory)[span.start - first : span.stop - first]

    def value(self, buffer: Buffer) -> bytes:
        return bytes(self.memory.get(buffer, bytearray(buffer.size)))


class Simulation:
    """`entries` by rank, with `values`: by rank, what it gives in all."""

    def __init__(
        self,
        placement: Placement,
        entries: dict[int, Entry],
        values: dict[int, bytes],
        seed: int = 0,
        chunk: int = 1 << 30,
    ) -> None:
        self.placement = placement
        self.entries = entries
        self.values = values
        self.random = random.Random(seed)
        self.chunk = chunk
        count = len(placement.ranks)
        self.peers = {at: Peer(Collective(placement, at)) for at in range(count)}
        self.messages: dict[tuple[int, int], deque] = defaultdict(deque)
        self.pending: list[Callable[[], bool]] = [partial(self.call, rank) for rank in entries]
        """What can happen next, in any order; each says whether it did."""
        self.called: set[int] = set()
        self.dead: set[int] = set()
        self.moved: dict[tuple[int, int], int] = defaultdict(int)
        """Bytes by link, inline values too."""
        self.told: dict[int, int] = defaultdict(int)
        """Messages by sender."""
        self.carried: list[tuple[Span, int, int]] = []
        """Of transfers: what arrived."""
        self.itemsize = next(iter(entries.values())).call.itemsize

    # What can happen next.

    def run(self, steps: int = 1_000_000) -> Simulation:
        """Until nothing more happens, or for so many steps."""
        while self.pending and steps:
            at = self.random.randrange(len(self.pending))
            self.pending[at], self.pending[-1] = self.pending[-1], self.pending[at]
            steps -= self.pending.pop()()
        return self

    # What happens.

    def call(self, rank: int) -> bool:
        at = self.placement.peer_of[rank]
        if at in self.dead or rank in self.called:
            return False
        self.called.add(rank)
        peer, entry, value = self.peers[at], self.entries[rank], self.values[rank]
        if rank in peer.machine.come:  # what it brings is of no use
            self.perform(at, peer.machine.contributed(rank, entry, {}))
            return True
        if entry.call.kind is Kind.SCATTER:
            start = 0
            for to, size in enumerate(entry.sizes):
                buffer = Buffer(SHARE, rank, size, to=to)
                peer.memory[buffer] = bytearray(value[start : start + size])
                start += size
        elif entry.sizes:
            peer.memory[Buffer(VALUE, rank, len(value))] = bytearray(value)
        data = {
            to: bytes(peer.memory[buffer])
            for to, buffer in ridden(entry, rank, self.placement).items()
        }
        self.perform(at, peer.machine.contributed(rank, entry, data))
        return True

    def hear(self, link: tuple[int, int]) -> bool:
        source, to = link
        if to in self.dead or not self.messages[link]:
            return False
        self.perform(to, self.peers[to].machine.heard(source, self.messages[link].popleft()))
        return True

    def move(self, at: int, key: str) -> bool:
        sender = self.peers[at].sending.get(key)
        if sender is None or at in self.dead or sender.to in self.dead:
            return False
        receiver = self.peers[sender.to].expected.get(key)
        if receiver is None:
            assert key in self.peers[sender.to].cancelled, f"{key} was never expected"
            return False
        if receiver.received == sender.ready:
            return False
        step = min(sender.ready - receiver.received, self.random.randint(1, self.chunk))
        start = receiver.received
        receiver.received += step
        for_ = Span(receiver.span.buffer, receiver.span.start + start, 0)
        for_ = for_._replace(stop=for_.start + step)
        from_ = Span(
            sender.span.buffer, sender.span.start + start, sender.span.start + start + step
        )
        assert (for_.start, for_.stop) == (from_.start, from_.stop)
        self.peers[sender.to].bytes_of(for_)[:] = self.peers[at].bytes_of(from_)
        self.moved[at, sender.to] += step
        self.carried.append((for_, at, sender.to))
        is_over = receiver.received == receiver.span.stop - receiver.span.start
        if is_over:
            del self.peers[sender.to].expected[key]
            self.peers[sender.to].cancelled.add(key)
        self.perform(sender.to, self.peers[sender.to].machine.received(key, receiver.received))
        if is_over and self.peers[at].sending.pop(key, None) is not None:
            self.perform(at, self.peers[at].machine.sent(key))
        self.pending.append(partial(self.move, at, key))
        return True

    def give_up(self, at: int, key: str) -> bool:
        """The receiver has cancelled the transfer."""
        if at in self.dead or self.peers[at].sending.pop(key, None) is None:
            return False
        self.perform(at, self.peers[at].machine.sent(key))
        return True

    def reduce(self, at: int) -> bool:
        peer = self.peers[at]
        if at in self.dead:
            return False
        at_random = self.random.randrange(len(peer.reductions))
        number, target, sources, members = peer.reductions.pop(at_random)
        parts = [bytes(peer.bytes_of(source)) for source in sources]
        assert all(len(part) % self.itemsize == 0 for part in parts)
        is_final = target.buffer.role == OUTCOME
        assert is_final == (members > 0)
        assert is_final != target.buffer.is_interim
        peer.bytes_of(target)[:] = folded(self.itemsize, parts, final=is_final)
        noted = any(entry.call.noted for entry in self.entries.values())
        note = f"{target.start}-{target.stop}".encode() if noted and is_final else b""
        self.perform(at, peer.machine.reduced(number, note))
        return True

    def kill(self, at: int) -> None:
        """What it said may still arrive, up to some point."""
        self.dead.add(at)
        for (source, to), queue in self.messages.items():
            if source == at:
                for _ in range(self.random.randint(0, len(queue))):
                    queue.pop()
            elif to == at:
                queue.clear()
        others = [other for other in self.peers if other not in self.dead]
        self.pending += [partial(self.notice, other, at) for other in others]

    def miss(self, rank: int) -> None:
        """The member never makes the call."""
        at = self.placement.peer_of[rank]
        if rank not in self.called and at not in self.dead:
            self.called.add(rank)
            self.perform(at, self.peers[at].machine.member_lost(rank, "failed"))

    def notice(self, who: int, lost: int) -> bool:
        if who in self.dead:
            return False
        self.messages[lost, who].clear()
        self.perform(who, self.peers[who].machine.peer_lost(lost))
        return True

    def perform(self, at: int, actions: list) -> None:
        peer = self.peers[at]
        for action in actions:
            match action:
                case Tell(to, message):
                    assert to != at
                    self.told[at] += 1
                    self.moved[at, to] += _inline(message)
                    if to not in self.dead:
                        self.messages[at, to].append(message)
                        self.pending.append(partial(self.hear, (at, to)))
                case Store(buffer, data):
                    peer.memory[buffer] = bytearray(data)
                case Forget(buffer):
                    peer.memory.pop(buffer, None)
                case Expect(transfer):
                    assert transfer.key not in peer.expected
                    peer.expected[transfer.key] = Receiver(transfer.span)
                    peer.cancelled.discard(transfer.key)
                    self.pending.append(partial(self.move, transfer.peer, transfer.key))
                case Send(transfer):
                    assert transfer.key not in peer.sending
                    peer.sending[transfer.key] = Sender(transfer.peer, transfer.span)
                case Ready(key, upto):
                    peer.sending[key].ready = upto
                    self.pending.append(partial(self.move, at, key))
                case Cancel(key):
                    assert peer.sending.pop(key, None) or peer.expected.pop(key, None)
                    peer.cancelled.add(key)
                    for other in self.peers:
                        if other not in self.dead and key in self.peers[other].sending:
                            self.pending.append(partial(self.give_up, other, key))
                case Reduce():
                    peer.reductions.append(action)
                    self.pending.append(partial(self.reduce, at))
                case Deliver(rank, outcome):
                    peer.delivered.setdefault(rank, []).append(outcome)
                case Fail(rank, error, sentence):
                    assert rank not in peer.failed
                    assert rank not in peer.delivered
                    peer.failed[rank] = error, sentence
                case Close():
                    assert not peer.is_closed
                    peer.is_closed = True
        if peer.machine.gives and (holder := peer.machine.holder(self.placement, at)) is not None:
            peer.machine, peer.is_closed = holder, True

    # What came of it.

    def outcome(self, rank: int) -> tuple[Outcome, list[bytes]]:
        peer = self.peers[self.placement.peer_of[rank]]
        (outcome,) = peer.delivered[rank]
        return outcome, [peer.value(buffer) for buffer in outcome.buffers]

    def sent_by(self, at: int) -> int:
        return sum(size for (source, _), size in self.moved.items() if source == at)


def _inline(message: object) -> int:
    if isinstance(message, Announcement):
        return sum(len(part) for member in message.members for _, part in member.data)
    if isinstance(message, Probe):
        assert not message.member.data
    if isinstance(message, Relayed):
        return sum(map(_inline, message.announcements))
    return 0
