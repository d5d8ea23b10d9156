"""What tasks do in the simulation: their results can be computed beforehand."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from manta.protocol.exchange import (
    Broadcasted,
    Checkpointed,
    Contributed,
    ExchangeRead,
    LockReleased,
    LockWanted,
    ReadBroadcast,
    ReadCheckpoint,
    ReadContributions,
    ReadLock,
    ReadMessage,
    ReadPeers,
    ReadRoom,
    Receiving,
    Sent,
)
from manta.protocol.node import (
    Assignment,
    GlobalWritten,
    MetricsLogged,
    NextIteration,
    Progressed,
    ReadGlobal,
    ResultWritten,
    SelectResults,
    StopRequested,
)
from manta.protocol.values import BlobRef, Inline

Steps = Generator[Any, Any, None]


@dataclass(frozen=True)
class Sleep:
    seconds: float


@dataclass(frozen=True)
class FetchBlob:
    """Answered with whether the manager has it."""

    blob: BlobRef


@dataclass(frozen=True)
class Context:
    assignment: Assignment
    broken: dict[Any, str]
    """Promises that the platform broke to an attempt: no harm if the attempt does not count."""

    pace: float

    @property
    def instance(self) -> Any:
        return self.assignment.instance

    def require(self, truth: bool, sentence: str) -> None:
        if not truth:
            self.broken[self.instance] = sentence

    def chance(self, salt: str = "") -> float:
        """Between 0 and 1, by what runs: the same in every replay."""
        return zlib.crc32(f"{salt}{self.instance}".encode()) / 2**32


def number(value: int) -> Inline:
    return Inline(str(value).encode())


def model(swarm_id: str, value: int) -> BlobRef:
    """Too large for a message."""
    return BlobRef(f"{zlib.crc32(swarm_id.encode()):032x}{value:032x}", 1)


def read(value: Any) -> int:
    return int(value.digest[32:], 16) if isinstance(value, BlobRef) else int(value.data)


def write(context: Context) -> Steps:
    """Each attempt writes each of these once."""
    at = context.instance
    name = f"{at.alias}.{at.index}.{at.iteration}.{at.attempt}"
    yield GlobalWritten(at, f"once/{name}", number(at.attempt))
    yield GlobalWritten(at, "last", Inline(name.encode()))
    yield ResultWritten(at, "result", number(at.index))


def work(context: Context) -> Steps:
    yield Sleep(context.pace * (0.05 + context.chance() * 1.5))
    yield from write(context)
    yield Sleep(context.pace * (0.05 + context.chance("after") * 0.5))


def worker(context: Context) -> Steps:
    """A stage of federated learning: reads the model of its iteration."""
    model = yield ReadGlobal(context.instance.swarm_id, "model")
    iteration = context.instance.iteration
    context.require(read(model.value) == iteration, f"read model {model.value}")
    if isinstance(model.value, BlobRef):
        there = yield FetchBlob(model.value)
        context.require(there, f"model {iteration} was gone before it was fetched")
    yield MetricsLogged(context.instance, {"loss": 1.0}, iteration, 0.0)
    yield Progressed(context.instance, 0.5, "", 0.0)
    yield from work(context)


def aggregator(context: Context) -> Steps:
    at = context.instance
    found = yield SelectResults(at.swarm_id, "result", at.iteration)
    who = [(entry.alias, entry.index) for entry in found.entries]
    context.require(len(set(who)) == len(who), f"got an instance twice: {who}")
    yield ResultWritten(at, "count", number(len(who)))
    yield GlobalWritten(at, "model", model(at.swarm_id, at.iteration + 1))
    yield from work(context)


def straggler(context: Context) -> Steps:
    yield from worker(context)
    if context.instance.index == 1:
        yield Sleep(1000.0)


def scheduler(context: Context) -> Steps:
    """Goes on by schedule_next_iter, and in the end by stop_swarm."""
    at = context.instance
    yield from work(context)
    yield NextIteration(at)
    if at.iteration == 2:
        yield StopRequested(at)


def flaky(context: Context) -> Steps:
    """Fails the first time, in some way; the retries are enough."""
    yield from work(context)
    if context.instance.attempt == 0:
        way = context.chance("way")
        if way < 0.4:
            raise RuntimeError("flaky")
        if way < 0.7:
            yield "exit"
        yield Sleep(1000.0)  # the timeout


def failing(context: Context) -> Steps:
    yield from work(context)
    if context.instance.index == 1:
        raise RuntimeError("bad shape")


# Programs that talk to each other.

LETTERS = 3


def answered(read: ExchangeRead) -> Generator[Any, Any, Any]:
    found = yield read
    if getattr(found, "error", ""):
        raise RuntimeError(f"{found.error}: {found.sentence}")
    return found


def awaited(context: Context, read: ExchangeRead) -> Generator[Any, Any, Any]:
    """Polls until there is an answer; a wait that cannot end fails the attempt."""
    while True:
        found = yield from answered(read)
        if found.ready:
            return found.values
        yield Sleep(context.pace * 0.3)


def talk(context: Context) -> Steps:
    """Broadcasts, letters in a ring, a reduction, a lock, and a first attempt that may fail."""
    at = context.instance
    rank, attempt = at.index, at.attempt
    kept = yield from answered(ReadCheckpoint(at))
    if kept.value is not None:
        by = read(kept.value)
        context.require(by // 100 == rank and by % 100 < attempt, f"restored {by}")
    peers = (yield from answered(ReadPeers(at))).peers
    size = len(peers)
    yield Broadcasted(at, f"hello {rank}", number(rank))
    after, before = peers[(rank + 1) % size], peers[rank - 1]
    for serial in range(LETTERS):
        yield Sent(at, after.node_id, f"to {after.rank}", number(10 * rank + serial))
    yield Checkpointed(at, number(100 * rank + attempt))
    got = []
    for serial in range(LETTERS):
        yield Receiving(at, before.node_id, f"to {rank}")
        (letter,) = yield from awaited(
            context, ReadMessage(at, before.node_id, f"to {rank}", serial)
        )
        got.append(read(letter.value))
        if attempt == 0 and context.chance(f"fails {serial}") < 0.15:
            raise RuntimeError("flaky")
    expected = [10 * before.rank + serial for serial in range(LETTERS)]
    context.require(got == expected, f"got the letters {got}, not {expected}")
    for peer in peers:
        (said,) = yield from awaited(context, ReadBroadcast(at, f"hello {peer.rank}"))
        context.require(read(said.value) == peer.rank, f"heard {said}")
    yield from reduced(context, 0, "raise")
    yield from counted(context)
    yield from work(context)


FLOOD = 12


def flood(context: Context) -> Steps:
    """Sends more letters than may be unread, each when there is room, and receives meanwhile."""
    at = context.instance
    peers = (yield from answered(ReadPeers(at))).peers
    after, before = peers[(at.index + 1) % len(peers)], peers[at.index - 1]
    sent, room, got = 0, 0, list[int]()
    while sent < FLOOD or len(got) < FLOOD:
        if sent < FLOOD and not room:
            room = (yield from answered(ReadRoom(at, after.node_id, 2))).letters
        if sent < FLOOD and room:
            yield Sent(at, after.node_id, f"to {after.rank}", number(sent))
            sent, room = sent + 1, room - 1
            continue
        if len(got) < FLOOD:
            yield Receiving(at, before.node_id, f"to {at.index}")
            read_it = ReadMessage(at, before.node_id, f"to {at.index}", len(got))
            (letter,) = yield from awaited(context, read_it)
            got.append(read(letter.value))
        if at.attempt == 0 and context.chance(f"fails {len(got)}") < 0.01:
            raise RuntimeError("flaky")
        yield Sleep(context.pace * 0.05)
    context.require(got == list(range(FLOOD)), f"got the letters {got}")
    yield from work(context)


def reduced(context: Context, at_number: int, on_loss: str) -> Steps:
    """As `World.all_reduce` does it; what came out is a result, so that it can be compared."""
    at = context.instance
    mine = number(1000 * (at.index + 1) + at.attempt)
    yield Contributed(at, at_number, "all_reduce", mine)
    outcome = None
    if at.index:
        first = ReadContributions(at, at_number + 1, "all_reduce", ranks=(0,))
        try:
            (part,) = yield from awaited(context, first)
            outcome = read(part.value)
        except RuntimeError as error:
            if on_loss == "raise" or not str(error).startswith("PeerLost"):
                raise
    if outcome is None:
        collect = ReadContributions(at, at_number, "all_reduce", on_loss=on_loss)
        parts = yield from awaited(context, collect)
        outcome = sum(read(part.value) for part in parts)
        if not at.index:
            yield Contributed(at, at_number + 1, "all_reduce", number(outcome))
    yield ResultWritten(at, "reduced", number(outcome))


def counted(context: Context) -> Steps:
    """Adds one to what all add to, under a lock."""
    at = context.instance
    yield LockWanted(at, "counter")
    yield from awaited(context, ReadLock(at, "counter"))
    found = yield ReadGlobal(at.swarm_id, "counter")
    yield Sleep(context.pace * 0.1)
    yield GlobalWritten(at, "counter", number(1 + (read(found.value) if found.value else 0)))
    yield LockReleased(at, "counter")


def losing(context: Context) -> Steps:
    """One instance, by the iteration, is never there; the others go on."""
    at = context.instance
    if at.index == at.iteration % 2:
        yield Sleep(1000.0)
    yield from reduced(context, 0, "continue")
    yield from work(context)


_ALL = (work, worker, aggregator, straggler, scheduler, flaky, failing, talk, flood, losing)
PROGRAMS: dict[str, Callable[[Context], Steps]] = {program.__name__: program for program in _ALL}


def program_of(assignment: Assignment) -> Callable[[Context], Steps]:
    """A module's name is its program's."""
    return PROGRAMS[assignment.module.name]
