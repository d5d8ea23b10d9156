"""Enrols nodes: issues and checks their tokens, and gives them ids.

The use of a token is counted before it is stored, so that of two nodes that present it at the
same time only one gets the last use.
"""

from __future__ import annotations

import hashlib

import msgspec

from manta.actors import Refused, Reply
from manta.manager.auth.principals import Kind, Principal, of_node
from manta.manager.auth.rights import Right
from manta.manager.auth.tokens import LEEWAY, MAX_NODE_TTL, digest_of
from manta.manager.context import cluster_path
from manta.manager.gateway.part import Part, Request, Shared
from manta.manager.gateway.registrar import Registrar, record_of
from manta.manager.ids import new_id
from manta.manager.messages import NodeAdded
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.interface import Put
from manta.manager.store.records import (
    ADMIN_ROLE,
    ClusterRecord,
    KeyKind,
    KeyRecord,
    NodeRecord,
    TokenRecord,
)
from manta.protocol.clusters import CreateNodeToken, Token
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll, Enrolled, ExamineToken
from manta.protocol.names import MAX_NAME
from manta.protocol.node import Ok
from manta.protocol.tokens import NODE_AUDIENCE, TokenClaims


class Enrolment(Part):
    def __init__(self, shared: Shared, registrar: Registrar) -> None:
        super().__init__(shared)
        self._registrar = registrar

    def enroll(self, request: Request[Enroll, None]) -> None:
        message, principal, reply = request.message, request.who, request.defer()
        if principal.kind is Kind.NODE:  # the answer to its first try was lost
            self._enrolled(self._directory.nodes[principal.id], reply)
            return

        def then(claims: TokenClaims) -> None:
            self._enroll(message, principal.key, claims, reply)

        self._registrar.verify(
            "enrolment", request, NODE_AUDIENCE, then, reply, presented_by=principal.key
        )

    def _enroll(self, message: Enroll, key: str, claims: TokenClaims, reply: Reply) -> None:
        if (held := self._directory.node_with(key)) is not None:
            if self._context.principals.of(key).kind is not Kind.NODE:
                raise Refused(
                    Code.UNAVAILABLE, "This key is being enrolled; ask again in a moment."
                )
            self._enrolled(held, reply)
            return
        if self._registrar.is_user_s(key):
            raise Refused(
                Code.FORBIDDEN, "This key is a user's: enrol with a key of the node's own."
            )
        record = self._serving(claims)
        self._directory.check_alias(message.alias, claims.subject)
        node = NodeRecord(
            id=self._node_id(message, claims.subject),
            cluster_id=claims.subject,
            alias=message.alias,
            key=key,
            enrolled_at=self._actor.clock.wall(),
        )
        used = msgspec.structs.replace(record, uses=record.uses - 1)
        tokens = self._registrar.tokens

        def give_back() -> None:
            if now := tokens.get(used.digest):  # else its cluster was deleted meanwhile
                tokens[used.digest] = msgspec.structs.replace(now, uses=now.uses + 1)

        change, cluster = Change(self._writer), self._directory.clusters[node.cluster_id]
        admit = self._context.quotas.admit
        change.on_refusal(admit(node.id, cluster.owner_id, cluster.id, Quota.NODES))
        tokens[used.digest] = used
        change.on_refusal(give_back)
        change.put(self._directory.nodes, node)
        change.write(Put(used), Put(KeyRecord(key, KeyKind.NODE, node.id, node.enrolled_at)))

        def stored() -> None:
            self._context.principals.learn(of_node(node))
            self._listeners.admit(key)
            self._actor.log.info("node %s (%s) enrolled", node.alias, node.id)

            def added() -> None:
                self._actor.notify(cluster_path(node.cluster_id), NodeAdded(node))
                self._enrolled(node, reply)

            # Who is told that it has enrolled is among the cluster's nodes.
            self._forwarder.wake(node.cluster_id, added, lambda _: self._enrolled(node, reply))

        change.commit(reply, stored)

    def _enrolled(self, node: NodeRecord, reply: Reply) -> None:
        reply.set(Enrolled(node.id, node.cluster_id, node.alias))

    def examine(self, request: Request[ExamineToken, None]) -> None:
        """Checks a token as `enroll` does, without using it up."""
        reply = request.defer()

        def then(claims: TokenClaims) -> None:
            self._serving(claims)
            reply.set(Ok())

        what = "the examination of a token"
        self._registrar.verify(
            what, request, NODE_AUDIENCE, then, reply, presented_by=request.who.key
        )

    def _serving(self, claims: TokenClaims) -> TokenRecord:
        """Raises Refused unless the token can enrol one more node."""
        record = self._registrar.tokens.get(digest_of(claims.id))
        if record is None or record.uses < 1:
            raise Refused(
                Code.TOKEN_USED,
                "This token is used up or was withdrawn; create another one "
                "(manta node token, --uses for several nodes).",
            )
        if not self._may_enrol(record):
            raise Refused(
                Code.TOKEN_USED,
                "This token is no longer valid: who made it may not enrol nodes in the cluster any "
                "more; get one of somebody who may (manta node token).",
            )
        if claims.subject not in self._directory.clusters:
            raise Refused(
                Code.UNKNOWN_CLUSTER,
                "The cluster of this token was deleted; get a token of another.",
            )
        return record

    def _node_id(self, message: Enroll, cluster_id: str) -> str:
        """An id that a node of another cluster has is given with an ending of this cluster's: who
        enrols is not refused, and learns nothing of that node. Raises Refused."""
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
        nodes = self._directory.nodes
        if (other := nodes.get(node_id)) is not None and other.cluster_id != cluster_id:
            node_id = f"{node_id[: MAX_NAME - 9]}-{cluster_id[:8]}"
            if (other := nodes.get(node_id)) is not None and other.cluster_id != cluster_id:
                node_id = new_id()
        if (taken := nodes.get(node_id)) is not None:
            raise Refused(
                Code.ALIAS_TAKEN,
                f"A node with the id {node_id!r} is enrolled already (alias {taken.alias!r}); "
                f"remove it (manta node rm {node_id}), or set id = 'random' in [identity].",
            )
        return node_id

    # Tokens.

    def create_token(self, request: Request[CreateNodeToken, ClusterRecord]) -> None:
        message, cluster_id, reply = request.message, request.target.id, request.defer()
        who = request.who
        if message.ttl > MAX_NODE_TTL:
            raise Refused(
                Code.INVALID,
                f"A node token lives {MAX_NODE_TTL:.0f} s at most, not {message.ttl:.0f}; "
                "give a shorter ttl.",
            )

        def then(issued: tuple[str, TokenClaims]) -> None:
            token, claims = issued
            record = record_of(claims, uses=message.uses, made_by=who.id)
            if not self._may_enrol(record):
                raise Refused(
                    Code.FORBIDDEN, "Your right to enrol nodes in this cluster was withdrawn."
                )
            self._registrar.check_one_more(who.id)
            tokens, before = self._registrar.tokens, self._actor.clock.wall() - 2 * LEEWAY
            change = Change(self._writer)
            change.put(tokens, record)
            for one in [one for one in tokens.values() if one.expires_at < before]:
                change.delete(tokens, one)
            change.commit(reply, lambda: reply.set(Token(token, claims.expires_at)))

        self._registrar.work(
            "issuing a token",
            who.key,
            lambda now: self._context.authority.issue(
                NODE_AUDIENCE, cluster_id, now=now, ttl=message.ttl, uses=message.uses
            ),
            then,
            reply,
        )

    def _may_enrol(self, token: TokenRecord) -> bool:
        """Whether the user who made the token may still enrol nodes in its cluster."""
        if not token.made_by:
            return True
        user = self._registrar.users.get(token.made_by)
        if user is None:
            return False
        maker = Principal(Kind.USER, "", user.id, admin=user.role == ADMIN_ROLE)
        return Right.NODE_ENROL in self._roles.rights(maker, token.subject)
