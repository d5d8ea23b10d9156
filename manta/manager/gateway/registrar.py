"""Binds keys to users: sign-in, token binding and rotation, and the end of keys and tokens.

Signatures and passwords are checked on workers. A sign-in is answered only once it is durable. A
key is its user's until its token expires, is revoked or is replaced by none; then its links are
cut.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec

from manta.actors import Refused, Reply, Timer
from manta.manager.auth import passwords
from manta.manager.auth.limits import Attempt, TokenTries, too_many
from manta.manager.auth.principals import Kind, Principal, of_user, with_expiry
from manta.manager.auth.tokens import LEEWAY, USER_TTL, bound_elsewhere, digest_of
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.password_checks import Check, PasswordChecks
from manta.manager.gateway.work import Work
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.records import KeyKind, KeyRecord, TokenRecord, UserRecord
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll, ExamineToken
from manta.protocol.sign_in import Bind, CreateUserToken, RotateToken, SignedIn, SignIn, UserToken
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE, TokenClaims
from manta.transports.errors import LocalTransportError
from manta.transports.security.keys import check_key

ROTATED, ENDED = "rotated", "ended"
MOST_SPENT = 1000
"""Tokens that have ended which are kept of a user."""
UNBOUND_TTL = 86_400.0
"""Seconds within which a token that names no key must be shown by one."""

MOST_KEYS = 1000
"""Keys that a user may have: the next one ends the oldest."""
WAKES = 60.0
"""Seconds after which the clock is looked at again, which may have been set."""
MOST_CHECKED = 500
"""Tokens of strangers that may wait to be checked: a tenth of a second's work."""
SHOWN = 60
"""Characters of an address that somebody gave, in the log."""


class _Expire(msgspec.Struct, frozen=True):
    """To this actor: the tokens of some keys may have expired."""


class Registrar(Part):
    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        reader = self._context.reader
        self.users = {record.id: record for record in reader.all(UserRecord)}
        self.tokens = {record.digest: record for record in reader.all(TokenRecord)}
        keys = with_expiry(reader.all(KeyRecord), self.tokens.values())
        self._keys = {record.key: record for record in keys if record.kind == KeyKind.USER}
        """The keys of users; those whose token has expired stay, and are told from strangers."""
        self._tries = TokenTries()
        self._strangers = threading.BoundedSemaphore(MOST_CHECKED)
        self._work = Work(shared)
        self.work = self._work.run
        self.passwords = PasswordChecks(shared, self._work)
        self._expiring: Timer[Any] | None = None
        self._first_expiry: float | None = None
        self._cut_expired()

    # Users.

    def sign_in(self, request: Request[SignIn, None]) -> None:
        message, reply = request.message, request.defer()
        email = message.email.strip().lower()
        user = next((user for user in self.users.values() if user.email == email), None)
        key, authority = request.who.key, self._context.authority
        self._listeners.signs_in(key, reply)
        request.excuse(reply)
        wrong = "Address or password are wrong; check both, and try again."
        stored = user.password if user else None
        held = self._keys.get(key)
        is_own = user is not None and held is not None and held.subject == user.id

        def job() -> bool | None:
            return passwords.verify_password(stored, message.password) or None

        def then(_: object) -> None:
            assert user is not None
            now = self.users.get(user.id)
            if now is None or now.password != stored:
                raise Refused(Code.BAD_CREDENTIALS, wrong)
            token, claims = authority.issue(
                USER_AUDIENCE, user.id, now=self._actor.clock.wall(), ttl=USER_TTL, bound_to=key
            )
            self._become(now, key, token, record_of(claims, bound_to=key), reply)

        what = f"sign-in as {email[:SHOWN]!r} from {request.source or 'somewhere'}"
        check = Check(what, job, then, wrong, reply)
        known = user.id if user is not None and is_own else ""
        exists = user is not None
        self.passwords.check(Attempt(key, request.source, email, known, check, exists))

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
            if (claims.bound_to or record.bound_to or key) != key:
                raise bound_elsewhere()
            bound = msgspec.structs.replace(record, bound_to=key)
            self._become(user, key, message.token.strip(), bound, reply)

        # Whoever shows it: a replaced one that another key shows was stolen.
        self.verify("binding a token", request, USER_AUDIENCE, then, reply, presented_by=None)

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
            self._context.principals.learn(of_user(user, held))
            self._listeners.admit(key)
            self._expires(held)
            self._actor.log.info("%s signed in", user.email)
            reply.set(SignedIn(user.id, user.email, token, self._context.bulk.address))

        known = self._keys.get(key)
        if known is None and self._directory.node_with(key) is not None:
            raise Refused(
                Code.FORBIDDEN, "This key is being enrolled as a node's: use another one."
            )
        if (
            self._writer.idle
            and self.tokens.get(record.digest) == record
            and known is not None
            and (known.subject, known.family) == (user.id, family)
        ):
            stored()  # all of it is: who only reads needs no room on the disk
            return
        change = Change(self._writer)
        oldest = self._make_room(change, user.id, key)
        for one in [one for one in self.tokens.values() if one.bound_to == key]:
            if one.subject == user.id and not one.revoked and one.digest != record.digest:
                change.put(self.tokens, msgspec.structs.replace(one, revoked=ROTATED))
        change.put(self.tokens, record)
        now, until = self._actor.clock.wall(), record.expires_at
        change.put(self._keys, KeyRecord(key, KeyKind.USER, user.id, now, family, until))

        def all_stored() -> None:
            self._listeners.withdraw(oldest, key)
            stored()

        change.commit(reply, all_stored)

    def _make_room(self, change: Change, user_id: str, key: str) -> list[str]:
        """Ends the oldest keys of a user who has as many as may be; returns them. Of the tokens
        that have ended, only the newest are kept."""
        theirs = [one for one in self._keys.values() if one.subject == user_id and one.key != key]
        theirs.sort(key=lambda one: one.since)
        ended = theirs[: max(0, len(theirs) + 1 - MOST_KEYS)]
        self._end(change, ended, [one for old in ended for one in self._family(old.family)])
        spent = [one for one in self.tokens.values() if one.subject == user_id and one.revoked]
        spent.sort(key=lambda one: one.expires_at)
        for one in spent[: max(0, len(spent) - MOST_SPENT)]:
            change.delete(self.tokens, one)
        return [one.key for one in ended]

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

        def then(issued: tuple[str, TokenClaims]) -> None:
            token, claims = issued
            user = self.users.get(principal.id)
            if user is None or principal.key not in self._keys:
                raise _revoked("it was ended meanwhile")
            self.check_one_more(principal.id)
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
            self._make_room(change, user.id, key)
            for one in old:
                change.put(self.tokens, msgspec.structs.replace(one, revoked=ROTATED))
            change.put(self.tokens, record)
            renewed = msgspec.structs.replace(
                held, family=record.family, expires_at=record.expires_at
            )
            change.put(self._keys, renewed)

            def stored() -> None:
                if self._keys.get(key) == renewed:
                    self._context.principals.learn(of_user(user, renewed))
                    self._expires(renewed)
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

        change.commit_lasting(reply, stored)

    def end(
        self, change: Change, user_id: str, key: str | None = None, spared: str | None = None
    ) -> list[str]:
        """Ends all keys and tokens of a user, or one key and its tokens; returns the keys. One key
        and its tokens may be spared. With all of them end the tokens for nodes that the user has
        made: whoever had one of the keys may have made them."""
        keys = [one for one in self._keys.values() if one.subject == user_id]
        tokens = [
            one
            for one in self.tokens.values()
            if one.audience == USER_AUDIENCE and one.subject == user_id
        ]
        if key is not None:
            keys = [one for one in keys if one.key == key]
            tokens = [one for one in tokens if one.bound_to == key]
        if spared is not None:
            keys = [one for one in keys if one.key != spared]
            tokens = [one for one in tokens if one.bound_to != spared]
        self._end(change, keys, tokens)
        if key is None:
            for made in [one for one in self.tokens.values() if one.made_by == user_id]:
                change.delete(self.tokens, made)
        return [one.key for one in keys]

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Expire):
            return False
        self._cut_expired()
        return True

    def _expires(self, key: KeyRecord) -> None:
        """Wakes when that key's token expires, if none does before."""
        first = self._first_expiry
        if key.expires_at is not None and (first is None or key.expires_at < first):
            self._cut_expired()

    def _cut_expired(self) -> None:
        """Cuts the keys whose token has expired, and looks again when the next one has."""
        principals, actor = self._context.principals, self._actor
        if over := principals.expired():
            actor.log.info("the tokens of %d keys have expired: they are signed out", len(over))
            self._listeners.withdraw(over, "")
        if self._expiring is not None:
            self._expiring.cancel()
        self._expiring, self._first_expiry = None, principals.first_expiry()
        if self._first_expiry is not None:
            left = max(0.0, self._first_expiry - actor.clock.wall())
            self._expiring = actor.after(min(left, WAKES), _Expire())

    def _end(self, change: Change, keys: list[KeyRecord], tokens: list[TokenRecord]) -> None:
        for key in keys:
            change.delete(self._keys, key)
        for token in tokens:
            change.put(self.tokens, msgspec.structs.replace(token, revoked=ENDED))

    def valid_tokens(self, user_id: str) -> int:
        """How many the user has, or has made for nodes."""
        now = self._actor.clock.wall()
        theirs = (one for one in self.tokens.values() if user_id in (one.subject, one.made_by))
        return sum(not one.revoked and one.uses > 0 and one.expires_at > now for one in theirs)

    def check_one_more(self, user_id: str) -> None:
        """Raises Refused if the user has as many tokens as may be. Asked where one is put: of two
        that are made side by side the second sees the first."""
        self._context.quotas.check(Quota.TOKENS, user_id, self.valid_tokens(user_id))

    def is_user_s(self, key: str) -> bool:
        """Whether the key is a user's, or about to be."""
        return key in self._keys

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

    def verify(
        self,
        what: str,
        request: Request[Bind | Enroll | ExamineToken, None],
        audience: str,
        then: Callable[[TokenClaims], None],
        reply: Reply,
        *,
        presented_by: str | None,
    ) -> None:
        """Like `work`; checks the token that the request presents. Raises Refused."""
        who = request.who
        known = who.kind in (Kind.USER, Kind.NODE)
        self._tries.check(who.key if known else request.source, self._actor.clock.now())
        if not known and not self._strangers.acquire(blocking=False):
            raise too_many("Too many tokens wait to be checked")
        token = request.message.token
        request.excuse(reply)

        def job(now: float) -> TokenClaims:
            try:
                return self._context.authority.verify(
                    token, audience, presented_by=presented_by, now=now
                )
            finally:
                if not known:
                    self._strangers.release()

        self.work(what, who.key, job, then, reply)


def record_of(
    claims: TokenClaims, *, uses: int = 1, bound_to: str = "", made_by: str = ""
) -> TokenRecord:
    return TokenRecord(
        digest=digest_of(claims.id),
        audience=claims.audience,
        subject=claims.subject,
        expires_at=claims.expires_at,
        uses=uses,
        bound_to=bound_to,
        made_by=made_by,
    )


def _revoked(why: str) -> Refused:
    return Refused(Code.TOKEN_REVOKED, f"This token is no longer valid: {why}; sign in again.")
