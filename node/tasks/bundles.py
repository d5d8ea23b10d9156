"""Bundles of attempts that fail: what the node knows of one beside what went wrong.

What is heard of an attempt while it runs is kept until its end is reported, and forgotten then.
What the owner holds back is left out of the error before it is written anywhere.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import msgspec

from manta.node.task_server.messages import AttemptExited, How, PackagesFound, StacksTaken
from manta.protocol.bundle import MOST_STACKS, Bundle, Moment, Usage
from manta.protocol.node import Assignment, TaskEnded, TaskError, TaskStarted, Timings
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef
from manta.transports.codec import values
from manta.transports.errors import BulkError

if TYPE_CHECKING:
    from manta.node.runners.interface import RuntimeExit
    from manta.node.shared.context import LeftRuntime, NodeContext

_FAILED = (AttemptState.FAILED, AttemptState.TIMEOUT, AttemptState.INTERRUPTED)
WORDS = ("traceback", "lines", "stacks")
"""What may quote values of the code's: a policy that limits what leaves holds it back."""
_PASSED = ("begun", "imported", "set up", "called", "returned")
"""The words for `manta.light.runtime.shared.PHASES`."""


class Bundles:
    """Of the attempts of one lane, which run one after another."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._packages: dict[str, str] = {}
        """Of the latest runtime's Python."""
        self._session = ""
        """The runtime that told them."""
        self.forget()

    def forget(self) -> None:
        """Called before an attempt, and after its end."""
        self._image, self._usage = "", Usage()
        self._how = How()
        self._began: float | None = None
        self._stacks = ""
        self._said = False
        """The code's process has told how it failed."""

    def heard(self, event: AttemptExited | RuntimeExit | PackagesFound | StacksTaken) -> None:
        match event:
            case AttemptExited(how=how):
                self._how = how or How()
                self._said = event.error is not None and not event.platform
            case PackagesFound(session=session, packages=packages):
                # It tells them before it runs the code, which could tell anything under this name.
                if session != self._session:
                    self._session, self._packages = session, dict(packages)
            case StacksTaken(text=text):
                self._stacks = text[:MOST_STACKS]
            case _:
                self._how = How(event.code)

    def measured(self, left: LeftRuntime) -> None:
        """Called before a runtime is ended: later there is nothing left to measure."""
        self._usage, self._image = left.handle.usage(), left.handle.image

    def completed(
        self,
        entry: TaskStarted | TaskEnded,
        assignment: Assignment | None,
        left: LeftRuntime | None,
    ) -> TaskStarted | TaskEnded:
        """Returns the entry as it is to be written: an attempt's failure with its bundle."""
        if isinstance(entry, TaskStarted):
            self._began = entry.at
            return entry
        if entry.error is None:
            self.forget()
            return entry
        error, parts = entry.error, {*self._context.config.bundle_redact}
        if (gate := self._context.gate).holds_failures(entry.instance):
            parts |= {*WORDS}
            if self._said and entry.state == AttemptState.FAILED:
                error = gate.without_words(entry.instance, error)
        elif gate.holds_lines(entry.instance):
            parts.add("lines")
            if not self._said:  # what its process wrote last
                parts.add("traceback")
        if entry.state in _FAILED and assignment is not None:
            if left is not None:
                self.measured(left)
            error = msgspec.structs.replace(error, bundle=self._bundle(entry, assignment))
        self.forget()
        error = redacted(error, parts)
        return msgspec.structs.replace(entry, error=error)

    def _bundle(self, entry: TaskEnded, assignment: Assignment) -> Bundle:
        image, how = assignment.module.image, self._how
        runs_in_image = self._context.runner.runs_in_image(image)
        return Bundle(
            isolation=self._context.runner.level(image),
            exit_code=how.status,
            out_of_memory=how.no_memory,
            usage=used(self._usage, how),
            image=self._image,
            python="" if runs_in_image else platform.python_version(),
            packages=self._kept(entry),
            timeline=tuple(timeline(entry, self._began, how.moments)),
            stacks=self._stacks,
        )

    def _kept(self, entry: TaskEnded) -> BlobRef | None:
        """Keeps the list of packages, once for all attempts that have the same. An end that names a
        value is sent after it: one of a node that stops could not be sent any more."""
        if entry.state == AttemptState.INTERRUPTED or not self._packages:
            return None
        if "packages" in self._context.config.bundle_redact:
            return None
        encoded = values.encode(self._packages)
        try:
            digest = self._context.values.put(*encoded.parts())
        except BulkError:  # there is no room: the failure matters more than its packages
            return None
        self._context.named.of_swarm(digest, entry.instance.swarm_id)
        return BlobRef(digest, encoded.nbytes)


def used(measured: Usage, how: How) -> Usage:
    """What the attempt's own process used is known best where it has ended; the most memory that
    all had together is more."""
    most = [size for size in (measured.memory, how.memory) if size is not None]
    return msgspec.structs.replace(
        measured,
        memory=max(most, default=None),
        cpu=how.cpu if how.cpu is not None else measured.cpu,
    )


def timeline(entry: TaskEnded, began: float | None, moments: tuple[int, ...]) -> Iterator[Moment]:
    """In order. What a task tells of itself lies between its begin and its end."""
    timings: Timings = entry.timings
    begun = entry.at if began is None else min(began, entry.at)
    yield Moment("queued", begun - timings.queued - timings.preparing - timings.starting)
    if began is not None:
        last = begun
        yield Moment("begun", begun)
        for what, at in list(zip(_PASSED, moments, strict=False))[1:]:
            if at:
                last = min(max(last, at / 1e9), entry.at)
                yield Moment(what, last)
    yield Moment("ended", entry.at)


def redacted(error: TaskError, parts: Collection[str]) -> TaskError:
    """Without what the owner holds back, which the bundle says."""
    if not parts:
        return error
    held: dict[str, object] = {}
    if "traceback" in parts:
        held["traceback"] = ""
    if "lines" in parts:
        held["last_lines"] = ()
    bundle = error.bundle
    if bundle is not None:
        less: dict[str, object] = {"redacted": tuple(sorted(parts))}
        nothing = {"exit": "exit_code", "usage": "usage", "image": "image"}
        nothing |= {"packages": "packages", "timeline": "timeline", "stacks": "stacks"}
        blank = Bundle()
        less |= {name: getattr(blank, name) for part, name in nothing.items() if part in parts}
        if "exit" in parts:
            less["out_of_memory"] = False
        if "packages" in parts:
            less["python"] = ""
        held["bundle"] = msgspec.structs.replace(bundle, **less)
    return msgspec.structs.replace(error, **held)
