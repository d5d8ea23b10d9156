"""How a round is described to its runtime, and how its end is to the user."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

import msgspec

from manta.light.wire import BrokenFrame
from manta.node.task_server.messages import RunRound
from manta.node.task_server.sessions import Round
from manta.protocol.node import TaskError

_TOLD = ("swarm_name", "task_id", "node_id", "size", "seed", "class_name", "timeout")
"""What a round hears of its assignment, besides the instance that it runs."""


def brief(order: RunRound) -> dict[str, Any]:
    """What a round is told of itself: `manta.light.context.Brief` is made of it."""
    assignment = order.assignment
    return {
        **msgspec.structs.asdict(assignment.instance),
        **{name: getattr(assignment, name) for name in _TOLD},
        "node_alias": order.node_alias,
        "datasets": order.datasets,
    }


def failed(error: tuple[str, str, str], tail: Iterable[str]) -> TaskError:
    """What the runtime says went wrong."""
    kind, sentence, traceback = error
    return TaskError(kind, sentence, traceback, tuple(tail))


def cancelled(round_: Round) -> TaskError:
    """A round that was to end, whatever it said at its end."""
    assert round_.cancelled is not None
    return TaskError("Cancelled", round_.cancelled, last_lines=tuple(round_.tail))


def unkept(round_: Round, error: tuple[str, str]) -> TaskError:
    """What a round returned found no room, or was damaged."""
    kind, sentence = error
    sentence = f"What {round_.name} returned could not be kept: {sentence}"
    return TaskError(kind, sentence, last_lines=tuple(round_.tail))


def unreadable(round_: Round, error: BrokenFrame) -> TaskError:
    """What a round left at its end is not what a runtime writes: its code meddled with it."""
    sentence = f"How {round_.name} ended can't be read: {error}"
    return TaskError("DataCorruptionError", sentence, last_lines=tuple(round_.tail))


def died(round_: Round, status: int) -> TaskError:
    """A round whose process ended without a word."""
    tail = tuple(round_.tail)
    if round_.cancelled is not None:
        return cancelled(round_)
    if status >= 0:
        sentence = (
            f"{round_.name} ended its process with exit code {status} before its code returned: "
            f"return from main() or run() instead."
        )
        return TaskError("Exited", sentence, last_lines=tail)
    name = _signal_name(-status)
    if name == "SIGKILL":
        sentence = (
            f"{round_.name} was killed (SIGKILL): if nobody did so on purpose, the machine ran "
            f"out of memory."
        )
    else:
        sentence = f"{round_.name} was ended by {name}: its process crashed in native code."
        if name not in ("SIGSEGV", "SIGBUS", "SIGABRT", "SIGILL", "SIGFPE"):
            sentence = f"{round_.name} was ended by {name}."
    return TaskError("Killed", sentence, last_lines=tail)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
