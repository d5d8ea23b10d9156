"""Describes an attempt to its runtime, and its end to the user."""

from __future__ import annotations

import signal
from typing import Any

import msgspec

from manta.light.wire import BrokenFrame
from manta.node.isolation.limits import more_memory
from manta.node.task_server.messages import RunAttempt
from manta.node.task_server.sessions import Attempt
from manta.protocol.node import TaskError
from manta.transports.errors import remedied

_TOLD = ("task_id", "node_id", "size", "seed", "class_name", "timeout", "direct")
"""What an attempt is told of its assignment, besides its instance."""


def brief(order: RunAttempt) -> dict[str, Any]:
    """What an attempt is told of itself, for `manta.light.context.Brief`."""
    assignment = order.assignment
    return {
        **msgspec.structs.asdict(assignment.instance),
        **{name: getattr(assignment, name) for name in _TOLD},
        "datasets": order.datasets,
    }


def failed(attempt: Attempt, error: tuple[str, str, str]) -> TaskError:
    """What went wrong, as the runtime tells it."""
    kind, sentence, traceback = error
    sentence = _with_the_cause(attempt, sentence)
    return TaskError(kind, sentence, traceback, last_lines=tuple(attempt.tail))


def cancelled(attempt: Attempt) -> TaskError:
    """The error of an attempt that was to end, whatever it said at its end."""
    assert attempt.cancelled is not None
    return TaskError("Cancelled", attempt.cancelled, last_lines=tuple(attempt.tail))


def unkept(attempt: Attempt, error: tuple[str, str]) -> TaskError:
    """The error of an attempt whose output found no room or was damaged."""
    kind, sentence = error
    sentence = f"What {attempt.name} returned could not be kept: {sentence}"
    return TaskError(kind, sentence, last_lines=tuple(attempt.tail))


def hung(attempt: Attempt) -> str:
    """What is told of an attempt that was over and did not end."""
    return (
        f"{attempt.name} was over, but hung in what its code does at its end, in native code: it "
        "was killed. Close in its code what it uses."
    )


def unserved(error: OSError) -> TaskError:
    """The error of an attempt for which the machine lacks what the node needs to serve it."""
    sentence = f"The node could not serve the task: {remedied(error)}."
    return TaskError("Unserved", sentence)


def unreadable(attempt: Attempt, error: BrokenFrame) -> TaskError:
    """The error of an attempt that left what no runtime writes: its code meddled with it."""
    sentence = f"How {attempt.name} ended can't be read: {error}"
    return TaskError("DataCorruptionError", sentence, last_lines=tuple(attempt.tail))


def died(attempt: Attempt, status: int) -> TaskError:
    """The error of an attempt whose process ended without a word."""
    tail = tuple(attempt.tail)
    if attempt.cancelled is not None:
        return cancelled(attempt)
    if status >= 0:
        sentence = (
            f"{attempt.name} ended its process with exit code {status} before its code returned: "
            f"return from main() or run() instead."
        )
        return TaskError("Exited", _with_the_cause(attempt, sentence), last_lines=tail)
    name = _signal_name(-status)
    if name == "SIGKILL" and attempt.no_memory:
        sentence = f"{attempt.name} was killed (SIGKILL): it took {_more_memory(attempt)}"
        return TaskError("ResourceExhaustionError", sentence, last_lines=tail)
    if name == "SIGKILL":
        sentence = (
            f"{attempt.name} was killed (SIGKILL): if nobody did so on purpose, the machine ran "
            f"out of memory."
        )
    else:
        sentence = f"{attempt.name} was ended by {name}: its process crashed in native code."
        if name not in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"):
            sentence = f"{attempt.name} was ended by {name}."
    return TaskError("Killed", _with_the_cause(attempt, sentence), last_lines=tail)


def _with_the_cause(attempt: Attempt, sentence: str) -> str:
    """Adds what the attempt may not have known: what became of a process that it started."""
    if not attempt.no_memory:
        return sentence
    sentence = sentence if sentence.endswith((".", "!", "?")) else f"{sentence}."
    told = "Before that, a process that it started was killed: together they took"
    return f"{sentence} {told} {_more_memory(attempt)}"


def _more_memory(attempt: Attempt) -> str:
    resources = attempt.order.assignment.resources
    most = resources.memory if resources and resources.memory else 0
    return more_memory(most)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
