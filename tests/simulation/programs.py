"""What tasks do in the simulation: their results can be computed beforehand."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

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
from manta.protocol.values import Inline

Steps = Generator[Any, Any, None]


@dataclass(frozen=True)
class Sleep:
    seconds: float


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


def read(value: Any) -> int:
    return int(value.data)


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
    yield MetricsLogged(context.instance, {"loss": 1.0}, iteration, 0.0)
    yield Progressed(context.instance, 0.5, "", 0.0)
    yield from work(context)


def aggregator(context: Context) -> Steps:
    at = context.instance
    found = yield SelectResults(at.swarm_id, "result", at.iteration)
    who = [(entry.alias, entry.index) for entry in found.entries]
    context.require(len(set(who)) == len(who), f"got an instance twice: {who}")
    yield ResultWritten(at, "count", number(len(who)))
    yield GlobalWritten(at, "model", number(at.iteration + 1))
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


_ALL = (work, worker, aggregator, straggler, scheduler, flaky, failing)
PROGRAMS: dict[str, Callable[[Context], Steps]] = {program.__name__: program for program in _ALL}


def program_of(assignment: Assignment) -> Callable[[Context], Steps]:
    """A module's name is its program's."""
    return PROGRAMS[assignment.module.name]
