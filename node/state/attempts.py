"""What ran on a node, and for whom, as its audit log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from manta.audit import folder as files
from manta.audit.records import Record, Unreadable, decode, may_be_torn
from manta.protocol.states import AttemptState


class Ran(msgspec.Struct, frozen=True):
    """One attempt. Times are in seconds since the epoch."""

    user: str
    swarm_id: str
    swarm: str
    task: str
    """Alias and index."""
    iteration: int
    attempt: int
    datasets: tuple[str, ...]
    began: float
    left: int = 0
    """Bytes of values that left, as far as they are recorded one by one until it has ended. What
    tasks tell each other directly is not among them."""
    ended: float | None = None
    status: str = AttemptState.RUNNING


def read(folder: Path, *, running: bool) -> tuple[list[Ran], int]:
    """Returns the attempts in the log, in the order in which they began, and how many of its lines
    cannot be read.

    `running`: whether the daemon is; else what has not ended was interrupted, nobody knows when.
    """
    log = Following(folder)
    log.update()
    return log.attempts(running=running), log.damaged


class Following:
    """Reads what has been added to a log since it was looked at last."""

    def __init__(self, folder: Path) -> None:
        self.damaged = 0
        """How many lines cannot be read."""
        self._folder = folder
        self._attempts = _Attempts()
        self._read: dict[Path, int] = {}
        """By segment: the bytes that were read of it."""

    def update(self) -> None:
        """Raises OSError."""
        try:
            paths = files.segments(self._folder)
        except FileNotFoundError:
            return
        for path in paths:
            at = self._read.get(path, 0)
            for line in files.lines(path, at):
                is_last = path == paths[-1] and not line.endswith(b"\n")
                if is_last and may_be_torn(line):
                    break  # it is being written
                at += len(line)
                self._take(line)
            self._read[path] = at

    def _take(self, line: bytes) -> None:
        try:
            block, _, _ = decode(line.removesuffix(b"\n"))
        except Unreadable:
            self.damaged += line.endswith(b"\n") or not may_be_torn(line)
            return
        for record in block.records:
            self._attempts.take(record)

    def attempts(self, *, running: bool) -> list[Ran]:
        """All, in the order in which they began; `running` as in `read`."""
        found = self._attempts.found.values()
        ran = found if running else [_interrupted(one, None) for one in found]
        return sorted(ran, key=lambda one: one.began)


class _Attempts:
    def __init__(self) -> None:
        self.found: dict[tuple[Any, ...], Ran] = {}
        """By what names an attempt, and when it began: a manager that was restored may give an
        attempt the name of another."""
        self._last: dict[tuple[Any, ...], Ran] = {}
        """By what names an attempt."""

    def take(self, record: Record) -> None:
        about = record.about
        name = tuple(str(about.get(part)) for part in ("swarm_id", "task", "iteration", "attempt"))
        match record.act:
            case "node-started":
                self.interrupt(record.at)
            case "attempt-began":
                self._put(name, _ran(record))
            case "attempt-ended":
                ran = self._last.get(name) or _ran(record)
                if ran.ended is None:
                    status, told = str(about.get("status")), about.get("left")
                    left = told.get("bytes") if isinstance(told, dict) else ran.left
                    left = left if isinstance(left, int) else ran.left
                    ended = {"ended": record.at, "status": status, "left": left}
                    self._put(name, msgspec.structs.replace(ran, **ended))
            case "value-left" if name in self._last:
                ran, size = self._last[name], about.get("bytes")
                if isinstance(size, int) and ran.ended is None:
                    self._put(name, msgspec.structs.replace(ran, left=ran.left + size))

    def interrupt(self, at: float) -> None:
        for name, ran in self._last.items():
            self._put(name, _interrupted(ran, at))

    def _put(self, name: tuple[Any, ...], ran: Ran) -> None:
        self.found[*name, ran.began] = self._last[name] = ran


def _interrupted(ran: Ran, at: float | None) -> Ran:
    if ran.status != AttemptState.RUNNING:
        return ran
    return msgspec.structs.replace(ran, ended=at, status=AttemptState.INTERRUPTED)


def _ran(record: Record) -> Ran:
    about = record.about
    began, iteration, attempt = map(about.get, ("began", "iteration", "attempt"))
    datasets = about.get("datasets")
    return Ran(
        record.who,
        str(about.get("swarm_id")),
        str(about.get("swarm", "")),
        str(about.get("task")),
        iteration if isinstance(iteration, int) else 0,
        attempt if isinstance(attempt, int) else 0,
        tuple(_name(one) for one in datasets) if isinstance(datasets, list) else (),
        began if isinstance(began, float) else record.at,
    )


def _name(dataset: object) -> str:
    return str(dataset.get("name") if isinstance(dataset, dict) else dataset)
