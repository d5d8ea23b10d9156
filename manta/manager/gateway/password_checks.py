"""Checks and hashes passwords, on workers of their own: no other request waits behind them."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from manta.actors import Refused, Reply
from manta.manager.auth import passwords
from manta.manager.auth.limits import SLOW_TURN, Attempt, SignIns, too_many
from manta.manager.auth.principals import Principal
from manta.manager.gateway.part import Part, Shared
from manta.manager.gateway.work import Work
from manta.protocol.codes import Code

MOST_OPEN = 8
"""Sign-ins of a stranger's key that are not answered yet."""


@dataclass
class Check:
    """What is done with a password once it is its turn."""

    what: str
    job: Callable[[], Any]
    """On a worker; None says that the password is wrong."""
    then: Callable[[Any], None]
    """In the actor, with what `job` returned."""
    wrong: str
    """The sentence for a wrong password."""
    reply: Reply
    told: bool = False
    """Whether it was refused, or is about to be answered by `then`."""


class _Due(msgspec.Struct):
    """To this actor: it is time to tell that a sign-in failed, if it did."""

    attempt: Attempt[Check]


class _SlowTurn(msgspec.Struct, frozen=True):
    """To this actor: it is the turn of one that waits in a slow lane."""


class PasswordChecks(Part):
    """The actor passes what it receives to `handle` first."""

    def __init__(self, shared: Shared, work: Work) -> None:
        super().__init__(shared)
        self._work = work
        self._line: SignIns[Check] = SignIns()
        self._open: Counter[str] = Counter()
        """Of each stranger's key, how many sign-ins are not answered yet."""
        self._turning = False
        """Whether a _SlowTurn is to come."""

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        match message:
            case _Due(attempt):
                now = self._actor.clock.now()
                if self._line.fails(attempt, now):
                    self._fail(attempt)
                elif attempt.due is not None and attempt.due > now:
                    self._actor.after(attempt.due - now, _Due(attempt))
            case _SlowTurn():
                self._turning = False
                self._advance(self._actor.clock.now())
            case _:
                return False
        return True

    def check(self, attempt: Attempt[Check]) -> None:
        """In its turn, checks the password. Raises Refused, or refuses it later, if too many wait
        or have failed."""
        now = self._actor.clock.now()
        if not attempt.user:
            attempt.lot = secrets.randbelow(1 << 32)
        try:
            if self._open[attempt.key] >= MOST_OPEN:
                raise too_many("Too many sign-ins of this key wait to be answered")
            gives_way = self._line.join(attempt, now)
        except Refused as refusal:
            self._work.log(attempt.work.what, attempt.key, refusal)
            raise
        if attempt.due is not None:
            self._open[attempt.key] += 1
            self._actor.after(attempt.due - now, _Due(attempt))
        if gives_way is not None:
            self._refuse(gives_way, too_many("Too many passwords wait for their turn"))
        self._advance(now)

    def hash(
        self, what: str, who: Principal, password: str, then: Callable[[str], None], reply: Reply
    ) -> None:
        """Hashes a new password, which waits for its turn like those that are checked."""

        def job() -> str:
            return passwords.hash_password(password)

        check = Check(what, job, then, "", reply)
        self.check(Attempt(who.key, "", who.name, who.id, check, is_new=True))

    def _advance(self, now: float) -> None:
        while (found := self._line.next(now)) is not None:
            attempt, refusal = found
            if refusal is None:
                self._begin(attempt)
            else:
                self._refuse(attempt, refusal)
        if self._line.is_slow and not self._turning:
            self._turning = True
            self._actor.after(SLOW_TURN, _SlowTurn())

    def _begin(self, attempt: Attempt[Check]) -> None:
        check = attempt.work

        def then(found: object) -> None:
            now = self._actor.clock.now()
            self._line.ended(attempt, now, failed=found is None)
            self._advance(now)
            if check.told:
                return  # it was due before
            if found is not None:
                self._close(attempt)
                check.then(found)
            elif attempt.due is None:  # else it is told when it is due
                self._fail(attempt)

        job, hashers = check.job, self._context.hashers
        self._work.run(check.what, attempt.key, lambda _: job(), then, check.reply, hashers)

    def _fail(self, attempt: Attempt[Check]) -> None:
        wrong = Refused(Code.BAD_CREDENTIALS, attempt.work.wrong)
        self._refuse(attempt, attempt.failure or wrong)

    def _refuse(self, attempt: Attempt[Check], refusal: Refused) -> None:
        check = attempt.work
        if check.told:
            return
        self._close(attempt)
        self._work.log(check.what, attempt.key, refusal)
        check.reply.fail(refusal)

    def _close(self, attempt: Attempt[Check]) -> None:
        attempt.work.told = True
        if attempt.due is not None:
            self._open[attempt.key] -= 1
            self._open += Counter()  # drops those with none
