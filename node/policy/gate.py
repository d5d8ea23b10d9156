"""What may leave of an attempt whose owner has limited that: tags, sizes and numbers of values.

Results, globals, metrics, outputs, and what is told to others through the manager, pass here one by
one before they are journaled. What tasks tell each other directly is not looked at: it may leave as
it is, or not at all. What is stopped is an error in the task, and is recorded.
"""

from __future__ import annotations

import threading

import msgspec

from manta.node.policy.rules import Leaves
from manta.node.state.audit import NodeAudit
from manta.protocol import exchange
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    MetricsLogged,
    ResultWritten,
    TaskEnded,
    TaskError,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.codec.values import encode

_TOLD = exchange.Broadcasted | exchange.Sent | exchange.Contributed
_NONE = b"".join(bytes(part) for part in encode(None).parts())
"""What a task returns that returns nothing."""
EACH = 20
"""Values of an attempt that were stopped, of which each is recorded."""


class _Under(msgspec.Struct):
    leaves: Leaves
    left: int = 0
    stopped: int = 0


class Gate:
    """May be used from any thread."""

    def __init__(self, audit: NodeAudit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._under: dict[Instance, _Under] = {}

    def limits(self, instance: Instance, leaves: Leaves) -> None:
        """From now on; values that have left while all might are not counted."""
        with self._lock:
            if leaves.everything:
                self._under.pop(instance, None)
            else:
                self._under.setdefault(instance, _Under(leaves)).leaves = leaves

    def ended(self, instance: Instance) -> None:
        with self._lock:
            self._under.pop(instance, None)

    def flaw(self, entry: JournalEntry, at: float) -> str:
        """Why what the attempt has told may not leave, in a sentence; "" if it may."""
        if entry.instance not in self._under:
            return ""
        match entry:
            case ResultWritten(tag=tag, value=value) | GlobalWritten(tag=tag, value=value):
                return self._stops(entry.instance, tag, _size(value), at)
            case MetricsLogged(metrics=metrics):
                flaws = (self._stops(entry.instance, name, 8, at) for name in metrics)
                return next(filter(None, flaws), "")
            case exchange.Checkpointed(value=value):
                return self._stops(entry.instance, "", _size(value), at)
            case _ if isinstance(entry, _TOLD):
                return self.tells_others(entry.instance, at)
        return ""

    def tells_others(self, instance: Instance, at: float) -> str:
        """Why the attempt may tell others nothing, in a sentence; "" if it may."""
        with self._lock:
            under = self._under.get(instance)
        if under is None or under.leaves.exchange:
            return ""
        return self._stopped(instance, under, "", 0, "tasks may tell each other nothing here", at)

    def output(self, end: TaskEnded, at: float) -> TaskEnded:
        """The end of an attempt, without what it returned if that may not leave."""
        said = end.output
        is_none = said is None or (isinstance(said, Inline) and said.data == _NONE)
        if is_none or not (flaw := self._stops(end.instance, "", _size(end.output), at)):
            return end
        error = TaskError("RequestFailed", f"What {end.instance} returned was not sent: {flaw}")
        return msgspec.structs.replace(end, state=AttemptState.FAILED, output=None, error=error)

    def _stops(self, instance: Instance, tag: str, size: int, at: float) -> str:
        with self._lock:
            under = self._under.get(instance)
            if under is None:
                return ""
            flaw = under.leaves.flaw(tag, size, under.left)
            under.left += not flaw
        return self._stopped(instance, under, tag, size, flaw, at) if flaw else ""

    def _stopped(
        self, instance: Instance, under: _Under, tag: str, size: int, why: str, at: float
    ) -> str:
        under.stopped += 1
        if under.stopped <= EACH:
            self._audit.stopped(instance, tag, size, why, at)
        return f"The owner of this node lets not all leave: {why}."


def _size(value: Payload | None) -> int:
    if value is None:
        return 0
    return value.size if isinstance(value, BlobRef) else len(value.data)
