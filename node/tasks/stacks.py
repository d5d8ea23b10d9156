"""Who asks for the stacks of a lane's attempt, and what they are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manta.actors import Refused
from manta.node.task_server.messages import TakeStacks
from manta.protocol.bundle import MOST_STACKS, Stacks
from manta.protocol.codes import Code
from manta.protocol.node import Instance

if TYPE_CHECKING:
    from collections.abc import Callable

    from manta.actors import Reply
    from manta.node.shared.context import NodeContext

ASKERS = 100
"""How many may wait for one attempt's."""
AGAIN = 5.0
"""Seconds after which a runtime is asked again that has not answered: twice what it takes."""


class StackReads:
    """All who ask at a time are answered with what is taken once."""

    def __init__(self, context: NodeContext) -> None:
        self._context = context
        self._asked: list[Reply] = []
        self._since = 0.0
        """When the runtime was asked for them."""

    def ask(
        self,
        instance: Instance,
        session: str,
        why_not: str,
        defer: Callable[[], Reply],
        now: float,
    ) -> None:
        """`why_not`: why there are none to show, if so. Raises Refused."""
        if "stacks" in self._context.config.bundle_redact:
            owner = "The node's owner holds the stacks of tasks back (bundle.redact)."
            raise Refused(Code.FORBIDDEN, owner)
        if self._context.gate.holds_failures(instance):
            owner = "The policy of the node's owner holds the stacks of this task back."
            raise Refused(Code.FORBIDDEN, owner)
        if why_not:
            raise Refused(Code.WRONG_STATE, f"{instance} {why_not}: it has no stacks to show.")
        if len(self._asked) >= ASKERS:
            raise Refused(Code.UNAVAILABLE, "Too many ask for its stacks at once: try again.")
        if not self._asked or now - self._since >= AGAIN:
            self._since = now
            self._context.sessions.tell(TakeStacks(session, instance))
        self._asked.append(defer())

    def answer(self, text: str) -> None:
        """Nothing: the attempt is over."""
        asked, self._asked = self._asked, []
        for reply in asked:
            if text:
                reply.set(Stacks(text[:MOST_STACKS]))
            else:
                sentence = "It has just ended, and has no stacks any more."
                reply.fail(Refused(Code.WRONG_STATE, sentence))
