"""What ran on a node, and for whom, as its audit log says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from manta.audit.records import Record
from manta.audit.verify import read as read_log
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
    ended: float | None = None
    status: str = AttemptState.RUNNING


def read(folder: Path, *, running: bool) -> tuple[list[Ran], int]:
    """Returns the attempts in the log, in the order in which they began, and how many of its lines
    cannot be read.

    `running`: whether the daemon is; else what has not ended was interrupted, nobody knows when.
    """
    damaged: list[Path] = []
    attempts = _Attempts()
    try:
        for _, record in read_log(folder, damaged.append):
            attempts.take(record)
    except FileNotFoundError:
        pass
    if not running:
        attempts.interrupt(None)
    return sorted(attempts.found.values(), key=lambda ran: ran.began), len(damaged)


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
                    status = str(about.get("status"))
                    self._put(name, msgspec.structs.replace(ran, ended=record.at, status=status))

    def interrupt(self, at: float | None) -> None:
        for name, ran in self._last.items():
            if ran.status == AttemptState.RUNNING:
                status = AttemptState.INTERRUPTED
                self._put(name, msgspec.structs.replace(ran, ended=at, status=status))

    def _put(self, name: tuple[Any, ...], ran: Ran) -> None:
        self.found[*name, ran.began] = self._last[name] = ran


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
