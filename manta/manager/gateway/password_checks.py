"""Checks and hashes passwords, on workers of their own: no other request waits behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from manta.actors import Refused, Reply
from manta.manager.auth import passwords
from manta.manager.auth.limits import Answers, Attempt, SignIns, too_many
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
    due: float | None = None
    """When a failure is told; None: at once."""
    crowded: bool = False
    """Whether a failure is told as one too many."""


class _Tell(msgspec.Struct):
    """To this actor: it is time to tell that a sign-in failed."""

    attempt: Attempt[Check]
    refusal: Refused


class PasswordChecks(Part):
    """The actor passes what it receives to `handle` first."""

    def __init__(self, shared: Shared, work: Work) -> None:
        super().__init__(shared)
        self._work = work
        self._line: SignIns[Check] = SignIns()
        self._answers = Answers()
        self._open: Counter[str] = Counter()
        """Of each stranger's key, how many sign-ins are not answered yet."""

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Tell):
            return False
        self._close(message.attempt)
        message.attempt.work.reply.fail(message.refusal)
        return True

    def check(self, attempt: Attempt[Check]) -> None:
        """In its turn, checks the password. Raises Refused, or refuses it later, if too many wait
        or have failed."""
        now, check = self._actor.clock.now(), attempt.work
        if not attempt.user:
            if self._open[attempt.key] >= MOST_OPEN:
                raise too_many("Too many sign-ins of this key wait to be answered")
            self._open[attempt.key] += 1
            check.due, check.crowded = self._answers.at(attempt.account, now)
        if attempt.exists:
            crowded = self._line.join(attempt, now)
            if crowded is not None:
                self._refuse(crowded, too_many("Too many sign-ins wait to be checked"))
        else:
            refusal = self._line.fail(attempt, now)
            self._refuse(attempt, refusal or Refused(Code.BAD_CREDENTIALS, check.wrong))
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
            if not attempt.exists:
                return  # it is refused already
            if found is None:
                self._refuse(attempt, Refused(Code.BAD_CREDENTIALS, check.wrong))
                return
            self._close(attempt)
            check.then(found)

        job, hashers = check.job, self._context.hashers
        self._work.run(check.what, attempt.key, lambda _: job(), then, check.reply, hashers)

    def _refuse(self, attempt: Attempt[Check], refusal: Refused) -> None:
        """Tells it when it is due."""
        check, now = attempt.work, self._actor.clock.now()
        if check.crowded:
            refusal = too_many("Too many sign-ins with this address are being tried")
        self._work.log(check.what, attempt.key, refusal)
        wait = 0.0 if check.due is None else check.due - now
        if wait > 0:
            self._actor.after(wait, _Tell(attempt, refusal))
            return
        self._close(attempt)
        check.reply.fail(refusal)

    def _close(self, attempt: Attempt[Check]) -> None:
        self._open[attempt.key] -= 1
        self._open += Counter()  # drops those with none
