"""Runs several instances of a task in this process, as threads: collectives, messages, broadcasts
and locks are those of nodes, over the memory that they share."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manta.apis import checks
from manta.apis.task import Task
from manta.light.context import MISSING, Entry, Part, here
from manta.light.errors import CollectiveError, NothingSent, PeerLost, Timeout, UnknownPeer
from manta.light.runtime.loader import Target
from manta.testing.attempts import Attempt, TaskRun, brief_of, entries, through, within
from manta.testing.programs import check_task, included, loaded, outcome_of
from manta.testing.task_ending import task_ending

MOST_INSTANCES = 100


def run_tasks(
    task: Callable[..., Any] | str | os.PathLike[str],
    instances: int = 4,
    globals: Mapping[str, Any] | None = None,
    datasets: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    results: Mapping[str, Any] | None = None,
    *,
    class_name: str | None = None,
    include: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] = (),
    iteration: int = 0,
    seed_: int = 0,
    timeout: float = 60.0,
) -> list[TaskRun]:
    """Runs all instances of a task at once, in this process, and returns what each wrote, by rank.

    Arguments are those of `run_task`; `datasets` may also be a list with a dict for each instance,
    and `timeout` is how many seconds collectives and messages wait unless the code says otherwise.
    Instance k is rank k on a node of its own, node-1 and so on. Instances are threads that share
    the module's state and Python's random state, as instances on nodes do not, and threads that
    they start have no World. The first exception of any instance passes through once all others
    have ended, which hear of it as they would on nodes. Raises TypeError, InvalidArgument.
    """
    if isinstance(task, Task) and task.module.function is not None:
        task = task.module.function
    check_task(task)
    size = checks.integer("run_tasks()'s instances", instances, 1, MOST_INSTANCES)
    class_name = checks.optional_name("run_tasks()'s class_name", class_name)
    iteration = checks.integer("run_tasks()'s iteration", iteration, 0)
    timeout = checks.seconds("run_tasks()'s timeout", timeout)
    mapped: list[Any] = [datasets or {}] * size
    if isinstance(datasets, list | tuple):
        mapped = [*datasets]
    if len(mapped) != size or not all(isinstance(one, Mapping) for one in mapped):
        raise TypeError(
            f"run_tasks() takes datasets as a dict, or as a list of {size} dicts, one for each "
            "instance."
        )
    shared = {tag: through(value) for tag, value in (globals or {}).items()}
    given = {tag: entries(tag, value, iteration) for tag, value in (results or {}).items()}
    with tempfile.TemporaryDirectory(prefix="manta-tasks-") as folder:
        room = _Room(size)
        attempts = list[_Instance]()
        for rank, data in enumerate(mapped):
            own = Path(folder) / str(rank)
            own.mkdir()
            brief = brief_of(own, data, iteration, seed_, class_name, rank, size, timeout)
            attempts.append(_Instance(brief, TaskRun(globals=shared), given, {}, {}, room=room))
        room.instances = attempts
        with (
            loaded(task, Path(folder), included(include)) as program,
            within(attempts[0]),
            task_ending() as end,
        ):
            targets = program.targets(class_name, size)
            threads = [
                threading.Thread(target=one.live, args=[target], name=f"{one.brief.name}")
                for one, target in zip(attempts, targets, strict=True)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if room.first_error is not None:
                raise room.first_error
            del targets, threads
            end.of(program.modules(), program.let_go)
    return [one.run for one in attempts]


class _Room:
    """What instances have in common; `changed` guards it, and tells who waits of each change."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.changed = threading.Condition()
        self.instances: list[_Instance] = []
        self.ended: dict[int, str] = {}
        """How, by rank."""
        self.first_error: BaseException | None = None
        self.kinds: dict[int, tuple[int, str]] = {}
        """Who called a collective first, and which it was."""
        self.mismatch = ""
        """What instances called instead of the same."""
        self.broadcasts: dict[str, Any] = {}
        self.messages: dict[tuple[str, str, str], list[Any]] = {}
        """By sender, receiver and tag."""
        self.locks: dict[str, int] = {}
        """Who holds it, by name."""

    def wait(self, is_over: Callable[[], bool], timeout: float) -> bool:
        """Waits until that is so, with `changed` held; returns whether it is."""
        return self.changed.wait_for(is_over, timeout)

    def living(self, ranks: Iterable[int]) -> list[int]:
        return [rank for rank in ranks if rank not in self.ended]


class _Instance(Attempt):
    """An instance whose peers are threads of this process."""

    def __init__(self, *of_attempt: Any, room: _Room) -> None:
        super().__init__(*of_attempt)
        self._room = room
        self.contributed: dict[tuple[int, int], Any] = {}
        """What is for this one, by the number of the collective and by rank."""

    def live(self, target: Target) -> None:
        """Runs it to its end, in a thread of its own."""
        here.context = self
        room, how = self._room, "has finished"
        try:
            self.run.output = through(outcome_of(target))
        except BaseException as error:
            how = f"has failed ({type(error).__name__})"
            with room.changed:
                room.first_error = room.first_error or error
        finally:
            with room.changed:
                room.ended[self.brief.index] = how
                for name in [name for name, at in room.locks.items() if at == self.brief.index]:
                    del room.locks[name]
                room.changed.notify_all()

    def call(self, request: str, /, **fields: Any) -> Any:
        with self._room.changed:
            try:
                return super().call(request, **fields)
            finally:
                self._room.changed.notify_all()

    def _select_results(self, tag: str, iteration: int | None) -> list[Entry]:
        at = self.brief.iteration if iteration is None else iteration
        found = [entry for entry in self.given.get(tag, []) if entry.iteration == at]
        for one in self._room.instances if at == self.brief.iteration else ():
            if tag in one.run.results:
                where = one.brief.node_id, one.brief.alias, one.brief.index
                found.append(Entry(*where, at, 0, through(one.run.results[tag][-1])))
        return found

    # To others and from them.

    def _broadcast(self, tag: str, value: Any) -> None:
        super()._broadcast(tag, value)
        self._room.broadcasts[tag] = value

    def _get_broadcast(self, tag: str, timeout: float) -> Any:
        room = self._room
        others = [rank for rank in range(room.size) if rank != self.brief.index]
        room.wait(lambda: tag in room.broadcasts or not room.living(others), timeout)
        if tag in room.broadcasts:
            return through(room.broadcasts[tag])
        if room.living(others):
            raise Timeout(f"Waited {timeout:g} s in vain: nobody has broadcast {tag!r}.")
        raise NothingSent(f"Nobody has broadcast {tag!r}, and nobody is left who could.")

    def _resolve_node(self, name: str) -> str:
        self._rank_of(name)
        return name

    def _rank_of(self, node: str) -> int:
        nodes = [one.brief.node_id for one in self._room.instances]
        if node not in nodes:
            raise UnknownPeer(f"There is no node {node!r}: there are {', '.join(nodes)}.")
        return nodes.index(node)

    def _send(self, to: str, tag: str, value: Any, timeout: float) -> None:
        self._rank_of(to)
        super()._send(to, tag, value, timeout)
        self._room.messages.setdefault((self.brief.node_id, to, tag), []).append(value)

    def _receive(self, source: str, tag: str, number: int, timeout: float) -> Any:
        room, sender = self._room, self._rank_of(source)
        place = source, self.brief.node_id, tag

        def has_come() -> bool:
            return len(room.messages.get(place, ())) > number

        room.wait(lambda: has_come() or sender in room.ended, timeout)
        if has_come():
            return through(room.messages[place][number])
        if sender in room.ended:
            raise PeerLost(f"{self._name(sender)} {room.ended[sender]} without sending {tag!r}.")
        raise Timeout(f"Waited {timeout:g} s in vain: no message {tag!r} has come from {source}.")

    def _contribute(self, number: int, kind: str, to: int | None, value: Any = MISSING) -> None:
        self._come_to(number, kind)
        for one in self._room.instances:
            if to in (None, one.brief.index):
                one.contributed[number, self.brief.index] = value

    def _collect(
        self,
        number: int,
        kind: str,
        *,
        ranks: Sequence[int] = (),
        enough: int | None = None,
        partial: bool = False,
        on_loss: str = "raise",
        timeout: float = 0.0,
        **_: Any,
    ) -> list[Part]:
        self._come_to(number, kind)
        room = self._room
        wanted = [*ranks] or [*range(room.size)]

        def come() -> list[int]:
            return [rank for rank in wanted if (number, rank) in self.contributed]

        def is_over() -> bool:
            missing = {*wanted} - {*come()}
            if not missing or room.mismatch or (enough is not None and len(come()) >= enough):
                return True
            living = room.living(missing)
            return not living or (on_loss == "raise" and len(living) < len(missing))

        is_done = room.wait(is_over, timeout)
        missing = [rank for rank in wanted if rank not in come()]
        lost = [rank for rank in missing if rank in room.ended]
        if missing and room.mismatch:
            raise CollectiveError(room.mismatch)
        if lost and on_loss == "raise":
            raise PeerLost(
                f"{kind} waits for {self._name(lost[0])}, which {room.ended[lost[0]]} without it."
            )
        if not is_done and not partial:
            names = ", ".join(map(self._name, missing))
            raise Timeout(f"Waited {timeout:g} s in vain: {kind} waits for {names}.")
        if not ranks:
            self.brief.left_out = {rank: room.ended.get(rank, "is late") for rank in missing}
        elif "continue" in kind:  # the outcome of those that were there for the number before
            absent = [at for at in range(room.size) if (number - 1, at) not in self.contributed]
            self.brief.left_out = {at: room.ended[at] for at in absent if at in room.ended}
        return [Part(rank, through(self.contributed[number, rank])) for rank in come()]

    def _come_to(self, number: int, kind: str) -> None:
        """Raises CollectiveError, to all, if another came to another collective."""
        room = self._room
        first, called = room.kinds.setdefault(number, (self.brief.index, kind))
        if called != kind:
            room.mismatch = (
                f"{self.brief.name} calls {kind} where {self._name(first)} calls {called}: all "
                "instances make the same collectives in the same order."
            )
            raise CollectiveError(room.mismatch)

    def _lock(self, name: str, timeout: float) -> None:
        room = self._room
        if not room.wait(lambda: name not in room.locks, timeout):
            holder = self._name(room.locks[name])
            raise Timeout(f"Waited {timeout:g} s in vain: {holder} holds the lock {name!r}.")
        room.locks[name] = self.brief.index

    def _unlock(self, name: str) -> None:
        if self._room.locks.get(name) == self.brief.index:
            del self._room.locks[name]

    def _list_peers(self) -> list[list[Any]]:
        size = self._room.size
        nodes = [one.brief.node_id for one in self._room.instances]
        return [[rank, node, node, 1 / size] for rank, node in enumerate(nodes)]

    def _name(self, rank: int) -> str:
        return f"{self.brief.alias}.{rank}"
