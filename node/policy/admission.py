"""Whether an order may run: by the policy, and by what the owner has said.

What the owner is to be asked is held. Nothing of it is running or queued, and it takes no place.
The manager wants it still, so that it comes back after any restart, and is held again; since when,
and what was said meanwhile, is on disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from manta.node.errors import ConfigError
from manta.node.policy import reading
from manta.node.policy.consent import (
    MOST_ASKED,
    MOST_SEEN,
    MOST_TEXT,
    MOST_WAITING,
    Asked,
    Consents,
    Subject,
    asked_again,
    latest,
    said_of,
)
from manta.node.policy.records import AskedRecords, OwnerRecords, mark_of
from manta.node.policy.rules import Leaves, Moment, Policy, Request, Verdict, decide
from manta.protocol.node import Assignment, Instance
from manta.protocol.signed import fingerprint, is_by_its_key
from manta.transports.codec.stored import Damaged

MARK = 60.0
"""Seconds after which the time is written again."""


class Ruling(msgspec.Struct, frozen=True):
    """`why` quotes what decided, without a full stop."""

    verdict: Verdict
    subject: Subject
    why: str = ""
    leaves: Leaves = Leaves()
    until: float | None = None
    """When the owner's consent is over."""

    def is_over(self, now: float) -> bool:
        return self.until is not None and now >= self.until


class Held(msgspec.Struct, frozen=True):
    """An order that waits for the owner; `id` is that of its subject."""

    order: Assignment
    id: str


class Admission:
    """Of one thread. Times are in seconds since the epoch.

    `level` says at which level of isolation the node runs modules with an image, or without.
    """

    def __init__(
        self, path: Path, records: OwnerRecords, level: Callable[[str | None], str]
    ) -> None:
        """Raises ConfigError, Damaged, OSError: then nothing may run."""
        self.held: dict[Instance, Held] = {}
        self.set_back = False
        """The clock is behind what it was."""
        self._path = path
        self._records = records
        self._level = level
        self.flaw = ""
        """Why nothing is allowed: what cannot be read, without a full stop."""
        self._keys: dict[str, set[str]] | None = None
        """Those that are known, by address; None: to be found anew."""
        self._marks = self._marked()  # first: what changes meanwhile is read again
        self._read()
        noted: AskedRecords = records.asked()
        self._asked = {
            id_: msgspec.structs.replace(one, waiting=0) for id_, one in noted.asked.items()
        }
        self._seen: dict[str, tuple[str, ...]] = dict(noted.seen)
        self._latest = self._written = noted.latest
        self._changed = False

    @property
    def policy(self) -> Policy:
        return self._policy

    @property
    def latest(self) -> float:
        """The time that counts for what ends."""
        return self._latest

    def looked(self) -> bool:
        """Reads what has changed on disk, and again what could not be read; whether anything is
        other than it was."""
        marks, flaw = self._marked(), self.flaw
        if marks == self._marks and not flaw:
            return False
        is_other, self._marks, self.flaw = marks != self._marks, marks, ""
        try:
            self._read()
        except (ConfigError, Damaged, OSError) as error:
            self.flaw = str(error).rstrip(".")
        return is_other or self.flaw != flaw

    def _read(self) -> None:
        policy, consents = reading.load(self._path), self._records.decided().consents
        self._policy = policy
        self._consents = Consents(consents)
        self._keys = None

    def _marked(self) -> object:
        return mark_of(self._path), self._records.mark()

    def rule(self, order: Assignment, wall: float, began: float | None = None) -> Ruling:
        """What is to become of it now, or of what was let in when it `began`. A key that is taken
        as the first of its address is kept."""
        now, self.set_back = latest(wall, self._latest)
        self._latest = now
        forged = order.signed is not None and not is_by_its_key(order)
        module, subject = order.module, subject_of(order)
        if self.flaw:
            return Ruling(
                Verdict.DENY, subject, f"what its owner allows cannot be read: {self.flaw}"
            )
        request = Request(
            user=order.user,
            key=subject.key,
            swarm=order.swarm_name,
            module=module.name,
            digest=subject.digest,
            image=module.image,
            datasets=subject.datasets,
            isolation=self._level(module.image),
            instances=order.size,
            outbound=order.outbound,
            at=moment(wall if began is None else began),
            forged=forged,
        )
        decision = decide(self._policy, request, self._known())
        verdict, why, by_consent = decision.verdict, decision.why, False
        until = None
        if verdict is not Verdict.DENY:
            nonce = order.signed.signed.nonce if order.signed is not None else ""
            said = said_of(self._consents.about(subject), subject, nonce, now)
            if said.verdict is Verdict.DENY:
                verdict, why = Verdict.DENY, said.why
            elif verdict is Verdict.ASK and said.verdict is Verdict.ALLOW:
                verdict, why, by_consent, until = Verdict.ALLOW, "", True, said.until
            elif verdict is Verdict.ASK and said.why:
                why = f"{said.why}; {why}"
        if verdict is Verdict.ALLOW and not by_consent and not self._sees(subject):
            verdict = Verdict.DENY
            why = (
                f"this node keeps the first keys of {MOST_SEEN:,} addresses, and of no more: list "
                f"{subject.user} among the users of its policy"
            )
        return Ruling(verdict, subject, why, decision.leaves, until)

    def _known(self) -> Mapping[str, set[str]]:
        if self._keys is None:
            self._keys = {user: set(keys) for user, keys in self._seen.items()}
            for user, keys in self._consents.keys.items():
                self._keys.setdefault(user, set()).update(keys)
        return self._keys

    def _sees(self, subject: Subject) -> bool:
        """Keeps a key that is taken as the first of its address, if there is room for it."""
        user, key = subject.user, subject.key
        if user not in self._policy.users and key not in self._known().get(user, ()):
            if len(self._seen) >= MOST_SEEN:
                return False
            self._seen[user] = (*self._seen.get(user, ()), key)
            self._changed, self._keys = True, None
        return True

    # --- what waits for the owner -------------------------------------------------------------

    def hold(self, order: Assignment, ruling: Ruling, wall: float) -> str:
        """Has it wait for the owner; why it cannot, or ""."""
        if order.instance in self.held:
            return ""
        if len(self.held) >= MOST_WAITING:
            return f"{MOST_WAITING:,} attempts wait for the owner of this node already"
        if self._has_its_share(ruling.subject):
            return f"half of all that may wait for the owner of this node is {order.user}'s already"
        signed, now = order.signed, latest(wall, self._latest)[0]
        one = Asked(
            ruling.subject,
            now,
            now,
            ruling.why,
            order.swarm_name,
            order.instance.swarm_id,
            signed.description if signed else "",
            order.instance.alias,
            order.module.name,
            str(ruling.leaves),
        )
        if len(msgspec.json.encode(one)) > MOST_TEXT:
            return f"what is asked for is told in more than {MOST_TEXT:,} bytes"
        asked = asked_again(self._asked, one, signed.signed.nonce if signed else "")
        if asked is None:
            return "as many requests wait for the owner of this node as it keeps"
        self._asked = asked
        self.held[order.instance] = Held(order, ruling.subject.id)
        self._count(ruling.subject.id, 1)
        return ""

    def _has_its_share(self, subject: Subject) -> bool:
        its = {
            id_: one.waiting
            for id_, one in self._asked.items()
            if one.waiting and one.subject.user == subject.user
        }
        is_new = subject.id not in its
        return sum(its.values()) >= MOST_WAITING // 2 or (is_new and len(its) >= MOST_ASKED // 2)

    def _count(self, id_: str, by: int) -> None:
        if (one := self._asked.get(id_)) is not None:
            self._asked[id_] = msgspec.structs.replace(one, waiting=one.waiting + by)
            self._changed = True

    def since(self, subject: Subject) -> float:
        """Since when the owner has been asked for it."""
        return self._asked[subject.id].since

    def drop(self, instance: Instance) -> None:
        """It waits no longer, if it did."""
        if (held := self.held.pop(instance, None)) is not None:
            self._count(held.id, -1)

    def settled(self, subject: Subject) -> None:
        """The owner has said what becomes of it."""
        if self._asked.pop(subject.id, None) is not None:
            self._changed = True

    def save(self) -> None:
        """Writes what has changed, and the time. Raises StorageError."""
        if self._changed or self._latest - self._written >= MARK:
            records = AskedRecords(dict(self._asked), dict(self._seen), self._latest)
            self._records.write_asked(records)
            self._changed, self._written = False, self._latest

    def passes(self, wall: float, elapsed: float = 0.0) -> bool:
        """Time goes on, by so many seconds where the clock is set back; whether it was found to be
        set back since."""
        before = self.set_back
        mark = self._latest + elapsed if before else self._latest
        self._latest, self.set_back = latest(wall, mark)
        return self.set_back and not before


def moment(at: float) -> Moment:
    local = time.localtime(at)
    return Moment(local.tm_wday, local.tm_hour * 60 + local.tm_min)


def subject_of(order: Assignment) -> Subject:
    module, signed = order.module, order.signed
    return Subject(
        order.user,
        fingerprint(signed.signed.key) if signed else "",
        module.package.digest if module.package is not None else "",
        module.image,
        tuple(sorted({*module.datasets, *order.datasets})),
        order.class_name,
        module.requirements,
        tuple(sorted({*module.outbound, *order.outbound})),
    )
