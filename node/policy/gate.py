"""What may leave of an attempt whose owner has limited that: tags, sizes and numbers of values.

Results, globals, metrics, outputs, and what is told to others through the manager, pass here one by
one before they are journaled. What tasks tell each other directly is not looked at: it may leave as
it is, or not at all, or in sums alone, which the plane sees to (`node/plane/sums.py`). What is
stopped is an error in the task, and is recorded.

Lines that code writes, and the messages of its progress, may leave or not: of those that may not
the user is told the number, as is the audit log. How far an attempt is is then told in hundredths,
so that a float says no more than that.
"""

from __future__ import annotations

import math
import threading

import msgspec

from manta.node.policy.rules import Leaves, SumLimit
from manta.node.state.audit import NodeAudit
from manta.protocol import exchange
from manta.protocol.node import (
    GlobalWritten,
    Instance,
    JournalEntry,
    MetricsLogged,
    Progressed,
    ResultWritten,
    TaskEnded,
    TaskError,
)
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Inline, Payload
from manta.transports.codec.values import encode

_TOLD = exchange.Broadcasted | exchange.Sent | exchange.Contributed | exchange.LockWanted
"""A lock tells others by its name, and by being held."""
_NONE = b"".join(bytes(part) for part in encode(None).parts())
"""What a task returns that returns nothing."""
LONGEST_KIND = 80
"""Of an error, which its code names as it likes."""
EACH = 20
"""Values of an attempt that were stopped, of which each is recorded."""
MOST_SILENT = 1000
MOST_COUNTED = 100_000
"""Instances of iterations of which it is known how many values have left, the latest."""


class _Under(msgspec.Struct):
    leaves: Leaves
    left: int = 0
    stopped: int = 0
    told: str = ""
    """The task, of what was stopped last."""
    lines: int = 0
    messages: int = 0
    """Of lines, and of progress, that were held back."""


class Gate:
    """May be used from any thread."""

    def __init__(self, audit: NodeAudit) -> None:
        self._audit = audit
        self._lock = threading.Lock()
        self._under: dict[Instance, _Under] = {}
        self._silent: dict[Instance, None] = {}
        """The latest that have ended whose lines do not leave: some may still be read."""
        self._left: dict[Instance, int] = {}
        """Values that have left of attempts that have ended, by the instance's first attempt: what
        is tried again has no more than is left of the first."""

    def begins(self, instance: Instance, leaves: Leaves) -> None:
        """Also of one that runs, of which other things may leave from now on."""
        with self._lock:
            self._silent.pop(instance, None)
            if (under := self._under.get(instance)) is not None:
                under.leaves = leaves
            elif not leaves.everything:
                self._under[instance] = _Under(leaves, self._left.get(_first(instance), 0))

    def ended(self, instance: Instance) -> None:
        with self._lock:
            under = self._under.pop(instance, None)
            if under is not None and under.left:
                self._left.pop(first := _first(instance), None)
                self._left[first] = under.left
                if len(self._left) > MOST_COUNTED:
                    del self._left[next(iter(self._left))]
            if under is not None and not under.leaves.logs:
                self._silent[instance] = None
                if len(self._silent) > MOST_SILENT:
                    del self._silent[next(iter(self._silent))]

    def flaw(self, entry: JournalEntry, at: float) -> str:
        """Why what the attempt has told may not leave, in a sentence; "" if it may."""
        if entry.instance not in self._under:
            return ""
        match entry:
            case ResultWritten(tag=tag, value=value) | GlobalWritten(tag=tag, value=value):
                return self._stops(entry.instance, tag, _size(value), at)
            case MetricsLogged(metrics=metrics):
                # Without a name it has its step yet, which may be any number.
                flaws = (self._stops(entry.instance, name, 8, at) for name in metrics or ("",))
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

    def sums_of(self, instance: Instance) -> SumLimit | None:
        """What it may tell others in sums, where that is all that it may tell them."""
        with self._lock:
            under = self._under.get(instance)
        if under is None or not under.leaves.sums:
            return None
        return SumLimit(under.leaves.sums, under.leaves.largest, under.leaves.most, under.left)

    def summed(self, instance: Instance) -> None:
        """A value has left in a sum; the plane counts only those that it has seen itself."""
        with self._lock:
            if (under := self._under.get(instance)) is not None:
                under.left += 1

    def stopped_at_plane(self, instance: Instance, size: int, why: str, at: float) -> None:
        """Something that was to be told to others has not left."""
        with self._lock:
            under = self._under.get(instance)
        if under is not None:
            self._stopped(instance, under, "", size, why, at)

    def limits_of(self, instance: Instance) -> str:
        """Names what may leave of it; "" if all may."""
        with self._lock:
            under = self._under.get(instance)
        return "" if under is None or under.leaves.everything else str(under.leaves)

    def holds_failures(self, instance: Instance) -> bool:
        """Whether what its code says of its failure, and where it stands, may not leave."""
        with self._lock:
            under = self._under.get(instance)
        return under is not None and not under.leaves.failures

    # --- lines and progress -------------------------------------------------------------------

    def holds_lines(self, instance: Instance) -> bool:
        """Whether what its code writes may not leave."""
        with self._lock:
            under = self._under.get(instance)
            return instance in self._silent if under is None else not under.leaves.logs

    def withhold(self, instance: Instance, count: int) -> bool:
        """So many lines do not leave; whether they are the first."""
        with self._lock:
            under = self._under.get(instance)
            if under is None:
                return False
            under.lines += count
            return under.lines == count

    def withheld(self, instance: Instance) -> int:
        """Lines and messages that did not leave."""
        with self._lock:
            under = self._under.get(instance)
        return 0 if under is None else under.lines + under.messages

    def progress(self, told: Progressed) -> Progressed:
        """As it may leave."""
        if not self.holds_lines(told.instance):
            return told
        if told.message:
            with self._lock:
                if (under := self._under.get(told.instance)) is not None:
                    under.messages += 1
        # What is no number has bits to spare, in which any other number can be.
        fraction = 0.0 if math.isnan(told.fraction) else round(told.fraction, 2)
        return msgspec.structs.replace(told, fraction=fraction, message="")

    # --- failures -----------------------------------------------------------------------------

    def without_words(self, instance: Instance, error: TaskError) -> TaskError:
        """How an attempt's code failed, without what that says: any value may be in it."""
        with self._lock:
            under = self._under.get(instance)
        kind = error.kind if error.kind.isidentifier() else "Exception"
        kind = kind[:LONGEST_KIND]
        kept = "the owner of its node holds back what that says"
        told = f" {under.told}" if under is not None and under.told else ""
        return msgspec.structs.replace(
            error, kind=kind, sentence=f"{instance} failed of {kind}: {kept}.{told}"
        )

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
        under.told = f"The owner of this node lets not all leave: {why}."
        return under.told


def _first(instance: Instance) -> Instance:
    return msgspec.structs.replace(instance, attempt=0)


def _size(value: Payload | None) -> int:
    if value is None:
        return 0
    return value.size if isinstance(value, BlobRef) else len(value.data)
