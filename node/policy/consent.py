"""What an owner has been asked, and has said: which code of whom may have which datasets.

A subject is what is asked for: somebody's key, code by its digest (what of it runs, in what, and
with which packages), datasets, and where it connects to. Other code is another subject, so that the
owner is asked again once a line has changed. A consent
is of one subject, or with `anyone` of its code and datasets, whoever asks.

Time never goes back here: `now` is the latest that was ever seen (`latest`), so that a clock that
is set back makes nothing valid again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from blake3 import blake3

from manta.node.policy.rules import Verdict

MOST_ASKED = 1000
"""Requests that are remembered."""
MOST_WAITING = 10_000
"""Attempts that wait for the owner."""
MOST_DECIDED = 10_000
MOST_SEEN = 10_000
"""Addresses of which the first key is kept."""
MOST_TEXT = 16 * 1024
"""Bytes of what is kept of a request."""
MOST_NONCES = 10
BACK = 120.0
"""Seconds by which a clock may go back, as time servers have it, before it counts as set back."""


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    user: str
    key: str
    """The fingerprint."""
    digest: str = ""
    """Of the module's package; "" for an image that runs its own entry point."""
    image: str | None = None
    datasets: tuple[str, ...] = ()
    class_name: str | None = None
    requirements: tuple[str, ...] = ()
    outbound: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Too long for anybody to find other code that has the same."""
        return blake3(msgspec.json.encode(self)).hexdigest(8)

    @property
    def code(self) -> Subject:
        """Without who asks."""
        return msgspec.structs.replace(self, user="", key="")


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request that waits for the owner, or waited. Times are in seconds since the epoch."""

    subject: Subject
    since: float
    last: float
    why: str
    """Quotes the rule that has it asked."""
    swarm: str = ""
    swarm_id: str = ""
    description: str = ""
    task: str = ""
    module: str = ""
    leaves: str = ""
    """What may leave, as the policy says."""
    nonces: tuple[str, ...] = ()
    """Of the deployments that have asked, the latest."""
    waiting: int = 0
    """Attempts that wait now."""


class Consent(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the owner has said of a subject. `until` is in seconds since the epoch."""

    subject: Subject
    allows: bool
    at: float
    by: str = ""
    """The account on the node's machine."""
    module: str = ""
    until: float | None = None
    once: tuple[str, ...] | None = None
    """Only these deployments; None: all."""
    anyone: bool = False

    @property
    def id(self) -> str:
        return self.subject.id

    def is_about(self, subject: Subject) -> bool:
        if self.anyone:
            return self.subject.code == subject.code
        return self.subject == subject


class Said(msgspec.Struct, frozen=True):
    """What is to become of a request that the owner is to be asked; `why` without a full stop."""

    verdict: Verdict
    why: str = ""
    until: float | None = None
    """Until when that holds."""


def said_of(consents: Iterable[Consent], subject: Subject, nonce: str, now: float) -> Said:
    """What the owner has said of it: a denial holds whatever else is allowed."""
    found = [one for one in consents if one.is_about(subject)]
    if any(not one.allows for one in found):
        return Said(Verdict.DENY, "the owner of this node has denied it")
    over = False
    for one in found:
        if one.until is not None and now >= one.until:
            over = True
        elif one.once is None or nonce in one.once:
            return Said(Verdict.ALLOW, until=one.until)
    return Said(Verdict.ASK, "what the owner allowed is over" if over else "")


def latest(now: float, mark: float) -> tuple[float, bool]:
    """The time that counts, and whether the clock was set back since `mark`."""
    return max(now, mark), now < mark - BACK


def keys_of(consents: Iterable[Consent]) -> dict[str, set[str]]:
    """The keys of people to whom the owner has said yes, by address."""
    found: dict[str, set[str]] = {}
    for one in consents:
        if one.allows and not one.anyone:
            found.setdefault(one.subject.user, set()).add(one.subject.key)
    return found


class Consents:
    """What the owner has said, by what it is about: an order is looked up among many."""

    def __init__(self, consents: Iterable[Consent]) -> None:
        self._by_code: dict[Subject, list[Consent]] = {}
        consents = tuple(consents)
        for one in consents:
            self._by_code.setdefault(one.subject.code, []).append(one)
        self.keys = keys_of(consents)

    def about(self, subject: Subject) -> list[Consent]:
        """All that may be about it."""
        return self._by_code.get(subject.code, [])


def replaced(consents: Iterable[Consent], said: Consent) -> tuple[Consent, ...]:
    """What holds once the owner has said something else of the subject."""
    return (*(one for one in consents if one.subject != said.subject), said)


def asked_again(asked: Mapping[str, Asked], one: Asked, nonce: str) -> dict[str, Asked] | None:
    """With the request; None if there is no room, as all that is there waits."""
    id_ = one.subject.id
    before = asked.get(id_)
    nonces = (*(before.nonces if before else ()), nonce)
    nonces = tuple(dict.fromkeys(nonces))[-MOST_NONCES:]
    since, waiting = (before.since, before.waiting) if before else (one.since, 0)
    one = msgspec.structs.replace(one, since=since, waiting=waiting, nonces=nonces)
    found = {**asked, id_: one}
    if len(found) > MOST_ASKED:
        idle = [old for old in found if not found[old].waiting and old != id_]
        if not idle:
            return None
        del found[min(idle, key=lambda old: found[old].last)]
    return found
