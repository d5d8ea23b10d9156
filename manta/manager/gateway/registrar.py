"""Binds keys to users: sign-in, token binding and rotation, and the end of keys and tokens.

Signatures and passwords are checked on a worker. A sign-in is answered only once it is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

from manta.actors import Refused, Reply
from manta.manager.auth import passwords
from manta.manager.auth.principals import GuestLimits, Principal, of_user
from manta.manager.auth.tokens import LEEWAY, USER_TTL, bound_elsewhere, digest_of
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.store.change import Change
from manta.manager.store.records import KeyKind, KeyRecord, TokenRecord, UserRecord
from manta.protocol.codes import Code
from manta.protocol.node import Enroll, ExamineToken
from manta.protocol.sign_in import Bind, CreateUserToken, RotateToken, SignedIn, SignIn, UserToken
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE, TokenClaims
from manta.transports.errors import LocalTransportError
from manta.transports.security.keys import check_key

T = TypeVar("T")
U = TypeVar("U")


ROTATED, ENDED = "rotated", "ended"
MOST_TOKENS = 1000
"""Valid tokens that a user may have."""
UNBOUND_TTL = 86_400.0
"""Seconds within which a token that names no key must be shown by one."""


WAITING = 200
"""Passwords that may wait to be checked."""


@dataclass(frozen=True)
class Attempt:
    """A password that somebody gives; `wrong` is the refusal's sentence."""

    what: str
    key: str
    email: str
    stored: str | None
    given: str
    wrong: str
    reply: Reply


class Registrar(Part):
    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        reader = self._context.reader
        self.limits = GuestLimits()
        self.users = {record.id: record for record in reader.all(UserRecord)}
        self.tokens = {record.digest: record for record in reader.all(TokenRecord)}
        self._keys = {
            record.key: record for record in reader.all(KeyRecord) if record.kind == KeyKind.USER
        }
        """The keys of users."""
        self._waiting: list[tuple[Callable[[], None], Reply]] = []
        """Passwords that are checked once others have been."""

    # Users.

    def sign_in(self, request: Request[SignIn, None]) -> None:
        message, reply = request.message, request.defer()
        email = message.email.strip().lower()
        user = next((user for user in self.users.values() if user.email == email), None)
        key, authority = request.who.key, self._context.authority
        self._listeners.signs_in(key, reply)

        def then(_: None) -> None:
            assert user is not None
            now = self._actor.clock.wall()
            token, claims = authority.issue(
                USER_AUDIENCE, user.id, now=now, ttl=USER_TTL, bound_to=key
            )
            self._become(user, key, token, record_of(claims, bound_to=key), reply)

        wrong = "Address or password are wrong; check both, and try again."
        stored = user.password if user else None
        attempt = Attempt(f"sign-in as {email}", key, email, stored, message.password, wrong, reply)
        self.check_password(attempt, lambda: None, then)

    def check_password(
        self, attempt: Attempt, job: Callable[[], T], then: Callable[[T], None]
    ) -> None:
        """Runs `job` on a worker if the password is right, and `then` in the actor; limits how
        fast anybody can guess. Raises Refused."""
        if self.limits.begin_sign_in(attempt.email, self._actor.clock.now()):
            self._check_now(attempt, job, then)
        elif len(self._waiting) < WAITING:
            again = partial(self.check_password, attempt, job, then)
            self._waiting.append((again, attempt.reply))
        else:
            raise Refused(Code.RATE_LIMITED, "Too many sign-ins wait; try again in a minute.")

    def _check_now(self, attempt: Attempt, job: Callable[[], T], then: Callable[[T], None]) -> None:
        def checked(_: float) -> tuple[T] | None:
            right = passwords.verify_password(attempt.stored, attempt.given)
            return (job(),) if right else None

        def ended(found: tuple[T] | None) -> None:
            self.limits.end_sign_in(attempt.email, failed=found is None)
            waiting, self._waiting = self._waiting, []
            for again, reply in waiting:
                try:
                    again()
                except Refused as refusal:
                    reply.fail(refusal)
            if found is None:
                raise Refused(Code.BAD_CREDENTIALS, attempt.wrong)
            then(*found)

        self.work(attempt.what, attempt.key, checked, ended, attempt.reply)

    def bind(self, request: Request[Bind, None]) -> None:
        message, key, reply = request.message, request.who.key, request.defer()
        self._listeners.signs_in(key, reply)

        def then(claims: TokenClaims) -> None:
            record = self.tokens.get(digest_of(claims.id))
            user = self.users.get(claims.subject)
            if user is None:
                raise _revoked("its user was deleted")
            if record is None:
                raise Refused(
                    Code.TOKEN_USED, "This token was withdrawn; sign in, or get another one."
                )
            if record.revoked == ROTATED and record.bound_to == key:
                self._still_holds(user, key, reply)
                return
            if record.revoked:
                self._shown_again(record, user, key, reply)
                return
            if record.bound_to not in ("", key):
                raise bound_elsewhere()
            bound = msgspec.structs.replace(record, bound_to=key)
            self._become(user, key, message.token.strip(), bound, reply)

        self.verify("binding a token", request, USER_AUDIENCE, then, reply)

    def _become(
        self, user: UserRecord, key: str, token: str, record: TokenRecord, reply: Reply
    ) -> None:
        if user.id not in self.users:
            raise _revoked("its user was deleted")
        family = record.family or record.digest

        def stored() -> None:
            held = self._keys.get(key)
            # Requests that a new key sends side by side each bind it, all to the same family.
            if held is None or (held.subject, held.family) != (user.id, family):
                reply.fail(_revoked("it was ended while you signed in"))
                return
            self._context.principals.learn(of_user(user, key))
            self._listeners.admit(key)
            self._actor.log.info("%s signed in", user.email)
            reply.set(SignedIn(user.id, user.email, token, self._context.bulk.address))

        known = self._keys.get(key)
        if (
            self._writer.idle
            and self.tokens.get(record.digest) == record
            and known is not None
            and (known.subject, known.family) == (user.id, family)
        ):
            stored()  # all of it is: who only reads needs no room on the disk
            return
        change = Change(self._writer)
        change.put(self.tokens, record)
        since = self._actor.clock.wall()
        change.put(self._keys, KeyRecord(key, KeyKind.USER, user.id, since, family))
        change.commit(reply, stored)

    def who_am_i(self, principal: Principal) -> SignedIn:
        user = self.users[principal.id]
        return SignedIn(user.id, user.email, "", self._context.bulk.address)

    def _still_holds(self, user: UserRecord, key: str, reply: Reply) -> None:
        """A key shows a token of its own that it has replaced: from a variable, or an old file. It
        proves what it is; nobody else is concerned."""
        held = self._keys.get(key)
        if held is None or held.subject != user.id:
            raise _revoked("another one took its place")
        reply.set(SignedIn(user.id, user.email, "", self._context.bulk.address))

    def create_token(self, request: Request[CreateUserToken, None]) -> None:
        principal, for_key, reply = request.who, request.message.for_key, request.defer()
        now = self._actor.clock.wall()
        if for_key:
            try:
                check_key(for_key, "key of the other machine")
            except LocalTransportError as error:
                raise Refused(Code.INVALID, f"T{str(error)[1:]}.") from None
        theirs = [one for one in self.tokens.values() if one.subject == principal.id]
        if sum(not one.revoked and one.expires_at > now for one in theirs) >= MOST_TOKENS:
            raise Refused(
                Code.RATE_LIMITED,
                f"You have {MOST_TOKENS} tokens that are valid: `manta sign-out --everywhere` "
                "revokes them.",
            )

        def then(issued: tuple[str, TokenClaims]) -> None:
            token, claims = issued
            user = self.users.get(principal.id)
            if user is None or principal.key not in self._keys:
                raise _revoked("it was ended meanwhile")
            change = Change(self._writer)
            change.put(self.tokens, record_of(claims, bound_to=for_key))
            for one in theirs:
                if one.expires_at < now - 2 * LEEWAY and one.digest in self.tokens:
                    change.delete(self.tokens, one)

            def stored() -> None:
                self._actor.log.info("%s made a token for another machine", user.email)
                reply.set(UserToken(token, claims.expires_at))

            change.commit(reply, stored)

        self.work(
            "issuing a token",
            principal.key,
            lambda now: self._context.authority.issue(
                USER_AUDIENCE,
                principal.id,
                now=now,
                ttl=USER_TTL if for_key else UNBOUND_TTL,
                bound_to=for_key,
            ),
            then,
            reply,
        )

    # The end of keys and tokens.

    def rotate(self, request: Request[RotateToken, None]) -> None:
        """Issues a new token for the key; the old one is invalid once this is answered."""
        principal, reply = request.who, request.defer()
        key = principal.key

        def then(issued: tuple[str, TokenClaims]) -> None:
            token, claims = issued
            held, user = self._keys.get(key), self.users.get(principal.id)
            if held is None or user is None:
                raise _revoked("it was ended meanwhile")
            family = held.family
            old = [one for one in self._family(family) if not one.revoked]
            record = record_of(claims, bound_to=key)
            record = msgspec.structs.replace(record, family=family or record.digest)
            change = Change(self._writer)
            for one in old:
                change.put(self.tokens, msgspec.structs.replace(one, revoked=ROTATED))
            change.put(self.tokens, record)
            change.put(self._keys, msgspec.structs.replace(held, family=record.family))

            def stored() -> None:
                self._actor.log.info("%s has a new token", user.email)
                reply.set(SignedIn(user.id, user.email, token, self._context.bulk.address))

            change.commit(reply, stored)

        self.work(
            "rotating a token",
            key,
            lambda now: self._context.authority.issue(
                USER_AUDIENCE, principal.id, now=now, ttl=USER_TTL, bound_to=key
            ),
            then,
            reply,
        )

    def _shown_again(self, record: TokenRecord, user: UserRecord, key: str, reply: Reply) -> None:
        """A rotated token is shown again, so it or its successor was stolen: ends the family."""
        if record.revoked != ROTATED:
            raise _revoked("its user signed out, or it was withdrawn")
        family = record.family or record.digest
        keys = [one for one in self._keys.values() if one.family == family]
        change = Change(self._writer)
        self._end(change, keys, self._family(family))
        refusal = _revoked("another one took its place, and as it was shown again, that one ended")

        def stored() -> None:
            self._actor.log.warning(
                "a rotated token of %s was shown again: %d keys were cut", user.email, len(keys)
            )
            self._listeners.withdraw([one.key for one in keys], key)
            reply.fail(refusal)

        change.commit(reply, stored)

    def end(self, change: Change, user_id: str, key: str | None = None) -> list[str]:
        """Ends all keys and tokens of a user, or one key and its tokens; returns the keys."""
        keys = [one for one in self._keys.values() if one.subject == user_id]
        tokens = [
            one
            for one in self.tokens.values()
            if one.audience == USER_AUDIENCE and one.subject == user_id
        ]
        if key is not None:
            keys = [one for one in keys if one.key == key]
            tokens = [one for one in tokens if one.bound_to == key]
        self._end(change, keys, tokens)
        return [one.key for one in keys]

    def _end(self, change: Change, keys: list[KeyRecord], tokens: list[TokenRecord]) -> None:
        for key in keys:
            change.delete(self._keys, key)
        for token in tokens:
            change.put(self.tokens, msgspec.structs.replace(token, revoked=ENDED))

    def node_tokens(self, cluster_id: str) -> list[TokenRecord]:
        """Those that enrol nodes into the cluster."""
        return [
            one
            for one in self.tokens.values()
            if one.audience == NODE_AUDIENCE and one.subject == cluster_id
        ]

    def _family(self, family: str) -> list[TokenRecord]:
        """Tokens of the family; a key from the bootstrap file has none."""
        if not family:
            return []
        return [one for one in self.tokens.values() if family in (one.digest, one.family)]

    # Work on other threads.

    def verify(
        self,
        what: str,
        request: Request[Bind | Enroll | ExamineToken, None],
        audience: str,
        then: Callable[[TokenClaims], None],
        reply: Reply,
    ) -> None:
        """Like `work`; checks the token that the request presents."""
        self.limits.check_token(self._actor.clock.now())
        token, key = request.message.token, request.who.key

        def job(now: float) -> TokenClaims:
            return self._context.authority.verify(token, audience, presented_by=key, now=now)

        self.work(what, key, job, then, reply)

    def work(
        self,
        what: str,
        key: str,
        job: Callable[[float], T],
        then: Callable[[T], None],
        reply: Reply,
    ) -> None:
        """Runs `job` on a worker, then `then` in the actor. A refusal is logged with the key and
        the reason, but without what was presented."""
        now = self._actor.clock.wall()

        def audited(step: Callable[[], U]) -> U:
            try:
                return step()
            except Refused as refusal:
                self._actor.log.warning(
                    "%s by the key %s... was refused (%s): %s",
                    *(what, key[:8], refusal.code, refusal.sentence),
                )
                raise

        future = self._context.workers.submit(audited, lambda: job(now))
        self._actor.pipe(future, lambda result: audited(lambda: then(result)), reply=reply)


def record_of(claims: TokenClaims, *, uses: int = 1, bound_to: str = "") -> TokenRecord:
    return TokenRecord(
        digest=digest_of(claims.id),
        audience=claims.audience,
        subject=claims.subject,
        expires_at=claims.expires_at,
        uses=uses,
        bound_to=bound_to,
    )


def _revoked(why: str) -> Refused:
    return Refused(Code.TOKEN_REVOKED, f"This token is no longer valid: {why}; sign in again.")
