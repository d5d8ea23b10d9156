"""The node's audit log: what was done with its owner's data, for the owner.

| act | of |
|---|---|
| node-started, node-stopped | the daemon, with the configuration in force, secrets left out |
| enrolled | the node, by its manager |
| attempt-began, attempt-ended | one attempt: for whom, which code, which datasets; how it ended |
| value-left | a value that it gave out, beyond EACH of an attempt only in sum, at its end |
| connection-opened | a task's connection to what its owner allows, the first EACH of a runtime |
| connections-ended | a runtime's, in sum, by what they led to |
| exchange-opened | its way to other tasks, over which values go that are not told one by one |
| result-given | a result that had stayed here, to the manager |
| attempt-denied, attempt-forbidden | one that its owner, or the policy, does not let in, or ends |
| approval-asked | one that waits for the owner |
| approved, denied, revoked | what the owner has said |
| value-stopped | a value that may not leave |
| clock-set-back | the machine, of which the owner's times go on all the same |
| log-head | how far the manager's own log went: it cannot be made anew unseen |

What had begun when a daemon starts, and had not ended, ended with the one before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from manta.audit.anchors import record_of
from manta.audit.keys import SealKey
from manta.audit.log import AuditLog
from manta.audit.records import Head, Record
from manta.node.state.records import Identity
from manta.protocol import exchange
from manta.protocol.node import (
    Assignment,
    DatasetUsed,
    GlobalWritten,
    Instance,
    JournalEntry,
    MetricsLogged,
    ResultWritten,
    TaskEnded,
)
from manta.protocol.signed import fingerprint, is_by_its_key
from manta.protocol.states import AttemptState
from manta.protocol.values import BlobRef, Payload

SEGMENT, KEPT = 4 * 1024 * 1024, 16
"""Bytes of a file of the log, and how many there are at most."""
EACH = 100
"""Values of an attempt that are recorded one by one."""

_WHAT: dict[type[Any], str] = {
    ResultWritten: "result",
    GlobalWritten: "global",
    exchange.Broadcasted: "broadcast",
    exchange.Sent: "message",
    exchange.Contributed: "contribution",
    exchange.Checkpointed: "checkpoint",
}


class _Under(msgspec.Struct):
    """An attempt that is under way."""

    user: str
    about: dict[str, Any]
    datasets: tuple[str, ...]
    began: float
    values: int = 0
    bytes: int = 0
    metrics: int = 0
    exchanges: bool = False


class NodeAudit:
    """May be used from any thread. Times are in seconds since the epoch."""

    def __init__(self, log: AuditLog) -> None:
        self.log = log
        self._lock = threading.Lock()
        self._under: dict[Instance, _Under] = {}

    def close(self, at: float) -> None:
        self._record(at, "node-stopped")
        self.log.close()

    def started(self, at: float, config: Mapping[str, Any], **about: Any) -> None:
        """`config` is what is in force, without secrets."""
        self._record(at, "node-started", **about, config=config)

    def reconfigured(self, at: float, config: Mapping[str, Any]) -> None:
        """As `started`: it is in force from now on."""
        self._record(at, "node-reconfigured", config=config)

    def drained(self, at: float, deadline: float | None) -> None:
        self._record(at, "node-drained", deadline=deadline)

    def enrolled(self, at: float, identity: Identity) -> None:
        self._record(at, "enrolled", **msgspec.structs.asdict(identity))

    # --- attempts -------------------------------------------------------------------------

    def began(
        self,
        assignment: Assignment,
        paths: Mapping[str, Path],
        at: float,
        used: Iterable[DatasetUsed] = (),
    ) -> None:
        """`paths` are those of the datasets that it is given, `used` what is said of them."""
        instance, module = assignment.instance, assignment.module
        names = tuple(dict.fromkeys((*module.datasets, *assignment.datasets)))
        about = {**_of(instance), "swarm": assignment.swarm_name}
        under = _Under(assignment.user, about, names, at)
        with self._lock:
            self._under[instance] = under
        about |= {"outbound": assignment.outbound} if assignment.outbound else {}
        said = {one.name: msgspec.to_builtins(one) for one in used}
        datasets = [
            {"name": name, "path": _text(paths.get(name)), **said.get(name, {})} for name in names
        ]
        told = {**about, **code_of(assignment), "datasets": datasets}
        self._record(at, "attempt-began", under.user, **told)

    def left(self, entry: JournalEntry, at: float) -> None:
        """What an attempt has told: the value in it, if any, is on its way out."""
        if isinstance(entry, MetricsLogged):
            with self._lock:
                if under := self._under.get(entry.instance):
                    under.metrics += 1
        elif what := _WHAT.get(type(entry)):
            tag, value = getattr(entry, "tag", ""), getattr(entry, "value", None)
            more: dict[str, Any] = {"tag": tag} if tag else {}
            if isinstance(value, BlobRef):
                more["digest"] = value.digest
            if isinstance(entry, ResultWritten) and entry.held:
                more["stays"] = True
            self._left(entry.instance, what, _size(value), at, **more)
        elif isinstance(entry, TaskEnded) and isinstance(entry.output, BlobRef):
            digest = entry.output.digest
            self._left(entry.instance, "output", _size(entry.output), at, digest=digest)
        elif isinstance(entry, TaskEnded) and entry.output is not None:
            self._left(entry.instance, "output", _size(entry.output), at)

    def summed(self, instance: Instance, size: int, at: float) -> None:
        """A value that it has given to a sum, which is all that it may give."""
        self._left(instance, "sum", size, at)

    def _left(self, instance: Instance, what: str, size: int, at: float, **more: Any) -> None:
        with self._lock:
            under = self._under.get(instance)
            if under is None:
                return
            under.values += 1
            under.bytes += size
            is_told = under.values <= EACH
        if is_told:
            self._record(at, "value-left", under.user, **under.about, what=what, bytes=size, **more)

    def stopped(self, instance: Instance, tag: str, size: int, why: str, at: float) -> None:
        """A value that may not leave."""
        with self._lock:
            under = self._under.get(instance)
        told = {**_of(instance), **(under.about if under else {})}
        self._record(
            at, "value-stopped", under.user if under else "", **told, tag=tag, bytes=size, why=why
        )

    def exchanges(self, instance: Instance, at: float) -> None:
        with self._lock:
            under = self._under.get(instance)
            is_first = under is not None and not under.exchanges
            if under is not None:
                under.exchanges = True
        if is_first:
            assert under is not None
            self._record(at, "exchange-opened", under.user, **under.about)

    def connected(self, assignment: Assignment, to: str, address: str, at: float) -> None:
        """A task was connected to what its owner allows."""
        about = {"swarm": assignment.swarm_name, "to": to, "address": address}
        of = _of(assignment.instance)
        self._record(at, "connection-opened", assignment.user, **of, **about)

    def connections_ended(
        self, assignment: Assignment, totals: Mapping[str, Any], at: float
    ) -> None:
        """`totals` by target: connections, failed ones, bytes sent and received."""
        of = {**_of(assignment.instance), "swarm": assignment.swarm_name}
        self._record(at, "connections-ended", assignment.user, **of, connections=totals)

    def ended(self, instance: Instance, status: str, at: float, withheld: int = 0) -> None:
        """Of one that never began, nothing is recorded. `withheld`: how many lines and messages
        were held back."""
        with self._lock:
            under = self._under.pop(instance, None)
        if under is not None:
            told = {"values": under.values, "bytes": under.bytes, "metrics": under.metrics}
            more = {"withheld": withheld} if withheld else {}
            self._record(
                at, "attempt-ended", under.user, **under.about, datasets=under.datasets,
                began=under.began, status=status, left=told, **more,
            )  # fmt: skip

    def interrupted(self, instance: Instance, at: float) -> None:
        """A daemon that died was running it."""
        status = str(AttemptState.INTERRUPTED)
        self._record(at, "attempt-ended", **_of(instance), status=status)

    # --- what its owner says --------------------------------------------------------------

    def owner(self, at: float, act: str, who: str = "", **about: Any) -> None:
        """What the owner has said, or what is said of the policy. `who` is a user whom it is
        about."""
        self._record(at, act, who, **about)

    def about_order(self, at: float, act: str, order: Assignment, **about: Any) -> None:
        """What becomes of an order that was not begun, or is ended."""
        self._record(at, act, order.user, **_of(order.instance), **code_of(order), **about)

    # --- what is asked of the node --------------------------------------------------------

    def gave_result(self, swarm_id: str, value: BlobRef, at: float) -> None:
        about = {"swarm_id": swarm_id, "digest": value.digest, "bytes": value.size}
        self._record(at, "result-given", **about)

    def keep_head(self, head: Head, public: str, at: float) -> None:
        """Where the manager's own log ended then."""
        self.log.record(record_of(at, head, public, of="manager"))

    def _record(self, at: float, act: str, who: str = "", /, **about: Any) -> None:
        self.log.record(Record(at, act, who, about=about))


def open_log(folder: Path, secret: str) -> NodeAudit:
    """`secret` is the node's secret key."""
    return NodeAudit(AuditLog(folder, SealKey(secret.encode()), segment=SEGMENT, kept=KEPT))


def code_of(order: Assignment) -> dict[str, Any]:
    """Which code the order names, with which datasets, and who has signed it."""
    module = order.module
    digest = module.package.digest if module.package is not None else None
    code = {"module": module.name, "version": module.version, "digest": digest}
    code |= {"image": module.image, "key": key_of(order)}
    code |= {"class_name": order.class_name, "requirements": ", ".join(module.requirements)}
    names = list(dict.fromkeys((*module.datasets, *order.datasets)))
    return {"swarm": order.swarm_name, **{k: v for k, v in code.items() if v}, "datasets": names}


def key_of(assignment: Assignment) -> str:
    """The fingerprint of the key that has signed the order; "none", or "false" if it has not."""
    if assignment.signed is None:
        return "none"
    key = assignment.signed.signed.key
    return fingerprint(key) if is_by_its_key(assignment) else "false"


def _of(instance: Instance) -> dict[str, Any]:
    return {
        "swarm_id": instance.swarm_id,
        "task": f"{instance.alias}.{instance.index}",
        "iteration": instance.iteration,
        "attempt": instance.attempt,
    }


def _size(value: Payload | None) -> int:
    if value is None:
        return 0
    return value.size if isinstance(value, BlobRef) else len(value.data)


def _text(path: Path | None) -> str:
    return "" if path is None else os.fsencode(path).decode("utf-8", "replace")
