"""Makes keys into nodes and users: enrolment, sign-in, binding, tokens, removal.

What needs a signature or a password checked goes to a worker, and comes back. A token's
use is reserved before it is stored and given back if it was not stored, so that two who
present it at the same time do not both pass. Nobody is told that he is somebody before
it is durable.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import msgspec

from manta.actors import Actor, Refused, Reply
from manta.manager.auth import passwords
from manta.manager.auth.principals import (
    GuestLimits,
    Kind,
    Principal,
    of_node,
    of_user,
)
from manta.manager.auth.tokens import (
    LEEWAY,
    MAX_NODE_TTL,
    USER_TTL,
    bound_elsewhere,
    digest_of,
)
from manta.manager.context import Context, work
from manta.manager.directory import Directory
from manta.manager.errors import StoreError
from manta.manager.ids import new_id
from manta.manager.store.actor import Writer
from manta.manager.store.interface import Delete, Put, Write
from manta.manager.store.records import (
    KeyKind,
    KeyRecord,
    NodeRecord,
    TokenRecord,
    UserRecord,
)
from manta.protocol.codes import Code
from manta.protocol.node import Enroll, Enrolled
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE, TokenClaims
from manta.protocol.user import Bind, CreateNodeToken, SignedIn, SignIn, Token

T = TypeVar("T")
U = TypeVar("U")


class Registrar:
    def __init__(
        self,
        actor: Actor,
        context: Context,
        directory: Directory,
        writer: Writer,
        *,
        on_known: Callable[[str], None],
        on_node: Callable[[NodeRecord], None],
    ) -> None:
        """Told of each key that is somebody's from here on, and of each node that enrolled."""
        self._actor = actor
        self._context = context
        self._directory = directory
        self._writer = writer
        self._on_known = on_known
        self._on_node = on_node
        self._limits = GuestLimits()
        self._users = {record.id: record for record in context.reader.all(UserRecord)}
        self._tokens = {record.digest: record for record in context.reader.all(TokenRecord)}

    # Enrolment.

    def enroll(self, message: Enroll, principal: Principal, reply: Reply) -> None:
        if principal.kind is Kind.NODE:  # the answer to its first try was lost
            record = self._directory.nodes[principal.id]
            reply.set(Enrolled(record.id, record.cluster_id, record.alias))
            return
        self._limits.check_token(self._actor.clock.now())
        key = principal.key
        self._work(
            "enrolment",
            key,
            lambda now: self._context.authority.verify(
                message.token, NODE_AUDIENCE, presented_by=key, now=now
            ),
            lambda claims: self._enroll(message, key, claims, reply),
            reply,
        )

    def _enroll(self, message: Enroll, key: str, claims: TokenClaims, reply: Reply) -> None:
        record = self._tokens.get(digest_of(claims.id))
        if record is None or record.uses < 1:
            raise Refused(
                Code.TOKEN_USED,
                "This token is used up or was withdrawn; create another one "
                "(manta node token, --uses for several nodes).",
            )
        if claims.subject not in self._directory.clusters:
            raise Refused(
                Code.UNKNOWN_CLUSTER,
                "The cluster of this token was deleted; get a token of another.",
            )
        self._directory.check_alias(message.alias, claims.subject)
        node = NodeRecord(
            id=self._node_id(message),
            cluster_id=claims.subject,
            alias=message.alias,
            key=key,
            enrolled_at=self._actor.clock.wall(),
        )
        used = msgspec.structs.replace(record, uses=record.uses - 1)
        self._tokens[used.digest] = used
        self._directory.nodes[node.id] = node

        def stored() -> None:
            self._context.principals.learn(of_node(node))
            self._on_known(key)
            self._on_node(node)
            self._actor.log.info("node %s (%s) enrolled", node.alias, node.id)
            reply.set(Enrolled(node.id, node.cluster_id, node.alias))

        def not_stored() -> None:
            del self._directory.nodes[node.id]
            now = self._tokens[used.digest]
            self._tokens[used.digest] = msgspec.structs.replace(now, uses=now.uses + 1)

        key_record = KeyRecord(key, KeyKind.NODE, node.id, node.enrolled_at)
        self._write((Put(used), Put(node), Put(key_record)), stored, reply, not_stored)

    def _node_id(self, message: Enroll) -> str:
        match message.id_mode:
            case "alias":
                node_id = message.alias
            case "random":
                node_id = new_id()
            case "hardware" if message.hardware_id:
                node_id = hashlib.sha256(message.hardware_id.encode()).hexdigest()[:16]
            case "hardware":
                raise Refused(
                    Code.INVALID,
                    "The node's hardware has no id; set id = 'random' or id = 'alias' in its "
                    "[identity].",
                )
            case mode:
                raise Refused(
                    Code.INVALID,
                    f"A node's id mode is 'hardware', 'random' or 'alias', not {mode!r}.",
                )
        if node_id in self._directory.nodes:
            taken = self._directory.nodes[node_id]
            raise Refused(
                Code.ALIAS_TAKEN,
                f"A node with the id {node_id!r} is enrolled already (alias {taken.alias!r}); "
                f"remove it (manta node rm {node_id}), or set id = 'random' in [identity].",
            )
        return node_id

    # Users.

    def sign_in(self, message: SignIn, principal: Principal, reply: Reply) -> None:
        email = message.email.strip().lower()
        self._limits.check_sign_in(email, self._actor.clock.now())
        user = next((user for user in self._users.values() if user.email == email), None)
        key, authority = principal.key, self._context.authority

        def job(now: float) -> tuple[UserRecord, str, TokenClaims]:
            if not passwords.verify_password(user.password if user else None, message.password):
                raise Refused(
                    Code.BAD_CREDENTIALS,
                    "Address or password are wrong; check both, and try again.",
                )
            assert user is not None
            token, claims = authority.issue(
                USER_AUDIENCE, user.id, now=now, ttl=USER_TTL, bound_to=key
            )
            return user, token, claims

        def then(found: tuple[UserRecord, str, TokenClaims]) -> None:
            user, token, claims = found
            self._limits.signed_in(email)
            self._become(user, key, token, _record_of(claims, bound_to=key), reply)

        self._work(f"sign-in as {email}", key, job, then, reply)

    def bind(self, message: Bind, principal: Principal, reply: Reply) -> None:
        self._limits.check_token(self._actor.clock.now())
        key = principal.key

        def then(claims: TokenClaims) -> None:
            record = self._tokens.get(digest_of(claims.id))
            user = self._users.get(claims.subject)
            if record is None or user is None:
                raise Refused(
                    Code.TOKEN_USED, "This token was withdrawn; sign in, or get another one."
                )
            if record.bound_to not in ("", key):
                raise bound_elsewhere()
            bound = msgspec.structs.replace(record, bound_to=key)
            self._become(user, key, message.token.strip(), bound, reply)

        self._work(
            "binding a token",
            key,
            lambda now: self._context.authority.verify(
                message.token, USER_AUDIENCE, presented_by=key, now=now
            ),
            then,
            reply,
        )

    def _become(
        self, user: UserRecord, key: str, token: str, record: TokenRecord, reply: Reply
    ) -> None:
        before = self._tokens.get(record.digest)
        self._tokens[record.digest] = record

        def stored() -> None:
            self._context.principals.learn(of_user(user, key))
            self._on_known(key)
            self._actor.log.info("%s signed in", user.email)
            reply.set(SignedIn(user.id, user.email, token, self._context.bulk.address))

        def not_stored() -> None:
            if before is None:
                del self._tokens[record.digest]
            else:
                self._tokens[record.digest] = before

        key_record = KeyRecord(key, KeyKind.USER, user.id, self._actor.clock.wall())
        self._write((Put(record), Put(key_record)), stored, reply, not_stored)

    def who_am_i(self, principal: Principal) -> SignedIn:
        user = self._users[principal.id]
        return SignedIn(user.id, user.email, "", self._context.bulk.address)

    # Tokens.

    def create_node_token(
        self, message: CreateNodeToken, cluster_id: str, by: Principal, reply: Reply
    ) -> None:
        if message.ttl > MAX_NODE_TTL:
            raise Refused(
                Code.INVALID,
                f"A node token lives {MAX_NODE_TTL:.0f} s at most, not {message.ttl:.0f}; "
                "give a shorter ttl.",
            )

        def then(issued: tuple[str, TokenClaims]) -> None:
            token, claims = issued
            record = _record_of(claims, uses=message.uses)
            expired = self._expired()

            def stored() -> None:
                self._tokens[record.digest] = record
                for digest in expired:
                    self._tokens.pop(digest, None)
                reply.set(Token(token, claims.expires_at))

            deletes = (Delete(TokenRecord, digest) for digest in expired)
            self._write((Put(record), *deletes), stored, reply)

        self._work(
            "issuing a token",
            by.key,
            lambda now: self._context.authority.issue(
                NODE_AUDIENCE, cluster_id, now=now, ttl=message.ttl
            ),
            then,
            reply,
        )

    def _expired(self) -> list[str]:
        before = self._actor.clock.wall() - 2 * LEEWAY
        return [token.digest for token in self._tokens.values() if token.expires_at < before]

    def tokens_of(self, cluster_id: str) -> list[TokenRecord]:
        return [
            token
            for token in self._tokens.values()
            if token.audience == NODE_AUDIENCE and token.subject == cluster_id
        ]

    def forget_tokens(self, tokens: list[TokenRecord]) -> None:
        for token in tokens:
            self._tokens.pop(token.digest, None)

    # How.

    def _work(
        self,
        what: str,
        key: str,
        job: Callable[[float], T],
        then: Callable[[T], None],
        reply: Reply,
    ) -> None:
        """Who was refused what, and why, is in the log; what he presented is not."""
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

        work(
            self._actor,
            self._context.workers,
            lambda: audited(lambda: job(now)),
            lambda result: audited(lambda: then(result)),
            reply,
        )

    def _write(
        self,
        writes: tuple[Write, ...],
        stored: Callable[[], None],
        reply: Reply,
        not_stored: Callable[[], None] = lambda: None,
    ) -> None:
        def then(error: StoreError | None) -> None:
            if error is None:
                stored()
            else:
                not_stored()
                reply.fail(Refused(Code.STORAGE, f"Nothing was changed: {error}"))

        self._writer.write(*writes, then=then)


def _record_of(claims: TokenClaims, *, uses: int = 1, bound_to: str = "") -> TokenRecord:
    return TokenRecord(
        digest=digest_of(claims.id),
        audience=claims.audience,
        subject=claims.subject,
        expires_at=claims.expires_at,
        uses=uses,
        bound_to=bound_to,
    )
