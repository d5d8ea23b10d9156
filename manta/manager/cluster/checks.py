"""Whether a swarm is sound and can be placed: before it is made, or because somebody asks."""

from __future__ import annotations

from collections.abc import Callable

from manta.actors import Actor, Refused, Reply
from manta.manager.context import Context
from manta.manager.messages import FromUser
from manta.manager.placement.nodes import NodeView
from manta.manager.placement.plan import check, refusal
from manta.manager.placement.validity import flaws
from manta.manager.swarm import plans, references
from manta.manager.views import ClusterView
from manta.protocol import user
from manta.protocol.codes import Code
from manta.protocol.user import Plan


class SwarmChecks:
    """Checks on workers, for the cluster's actor. `create` makes what was sent and is in order."""

    def __init__(
        self,
        actor: Actor,
        context: Context,
        view: ClusterView,
        create: Callable[[user.SendSwarm, str, Reply], None],
    ) -> None:
        self._actor = actor
        self._context = context
        self._view = view
        self._create = create
        self._waiting: list[tuple[FromUser, Reply]] = []
        """Those that may be placeable once nodes come back whose links have just dropped."""

    @property
    def are_waiting(self) -> bool:
        return bool(self._waiting)

    def again(self) -> None:
        """Nodes came or went."""
        waiting, self._waiting = self._waiting, []
        for request, reply in waiting:
            self.check(request, reply)

    def check(self, request: FromUser, reply: Reply) -> None:
        message = request.message
        assert isinstance(message, user.CheckSwarm | user.SendSwarm)
        if self._view.stopped:
            sentence = (
                f"The cluster {message.cluster!r} is stopped; start it (manta cluster start)."
            )
            reply.fail(Refused(Code.WRONG_STATE, sentence))
            return
        spec, nodes, user_ = message.spec, self._view.node_views, request.user

        def job() -> tuple[tuple[str, ...], Plan, list[str]]:
            named = list(references.of_spec(spec))
            there = self._context.may_name(user_, named)
            missing = [blob.digest for blob in named if blob.digest not in there]
            return flaws(spec), check(spec, nodes), missing

        found = self._context.jobs.submit(user_.id, job)
        self._actor.pipe(
            found, lambda found: self._checked(request, reply, nodes, *found), reply=reply
        )

    def _checked(
        self,
        request: FromUser,
        reply: Reply,
        nodes: tuple[NodeView, ...],
        flawed: tuple[str, ...],
        plan: Plan,
        missing: list[str],
    ) -> None:
        message = request.message
        if plan.problems and not flawed and any(node.returning for node in nodes):
            # These nodes may be back in a moment: wait for them.
            self._waiting.append((request, reply))
            if not any(node.returning for node in self._view.node_views):
                self.again()
            return
        if isinstance(message, user.CheckSwarm):
            plans.answer(self._actor, self._context, plan, request.user, reply)
            return
        assert isinstance(message, user.SendSwarm)
        if flawed:
            raise refusal(Code.INVALID, flawed)
        if plan.problems and not message.wait:
            raise refusal(Code.UNPLACEABLE, plan.problems)
        if missing:
            raise Refused(
                Code.BLOB_MISSING,
                f"{len(missing)} of the swarm's modules and values were not pushed; push them.",
                {"digests": missing},
            )
        self._create(message, request.user.id, reply)
