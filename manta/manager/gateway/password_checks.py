"""Checks and hashes passwords, on workers of their own: no other request waits behind them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from manta.actors import Refused, Reply
from manta.manager.auth import passwords
from manta.manager.auth.limits import Attempt, SignIns, too_many
from manta.manager.auth.principals import Principal
from manta.manager.gateway.part import Part, Shared
from manta.manager.gateway.work import Work
from manta.protocol.codes import Code


@dataclass(frozen=True)
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


class PasswordChecks(Part):
    def __init__(self, shared: Shared, work: Work) -> None:
        super().__init__(shared)
        self._work = work
        self._line: SignIns[Check] = SignIns()

    def check(self, attempt: Attempt[Check]) -> None:
        """In its turn, checks the password; refuses it if too many wait, or have failed."""
        crowded = self._line.join(attempt)
        if crowded is not None:
            self._refuse(crowded, too_many("Too many sign-ins wait to be checked"))
        self._advance()

    def hash(
        self, what: str, who: Principal, password: str, then: Callable[[str], None], reply: Reply
    ) -> None:
        """Hashes a new password, which waits for its turn like those that are checked."""

        def job() -> str:
            return passwords.hash_password(password)

        self.check(Attempt(who.key, "", who.name, who.id, Check(what, job, then, "", reply)))

    def _advance(self) -> None:
        while (found := self._line.next(self._actor.clock.now())) is not None:
            attempt, refusal = found
            if refusal is None:
                self._begin(attempt)
            else:
                self._refuse(attempt, refusal)

    def _begin(self, attempt: Attempt[Check]) -> None:
        check = attempt.work

        def then(found: object) -> None:
            self._line.ended(attempt, failed=found is None)
            self._advance()
            if found is None:
                raise Refused(Code.BAD_CREDENTIALS, check.wrong)
            check.then(found)

        job, hashers = check.job, self._context.hashers
        self._work.run(check.what, attempt.key, lambda _: job(), then, check.reply, hashers)

    def _refuse(self, attempt: Attempt[Check], refusal: Refused) -> None:
        self._work.log(attempt.work.what, attempt.key, refusal)
        attempt.work.reply.fail(refusal)
