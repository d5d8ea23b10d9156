"""An attempt's connection to the plane: asked of the plane's keeper, and ended before the attempt
counts as ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from manta.actors import Actor
from manta.node.policy.rules import SumLimit
from manta.node.shared.addresses import PLANE
from manta.node.shared.messages import Connect, EndExchange
from manta.node.task_server import requests as light
from manta.node.tasks.machine import plane_lost
from manta.protocol.base import Instance
from manta.protocol.node import Assignment, TaskEnded
from manta.protocol.states import AttemptState

_FINISHED = AttemptState.FINISHED

TIMEOUT = 60.0
"""Seconds for the plane to keep what an attempt said; disks may be slow, or full. Whoever is to end
the attempt's task waits as long."""

THROUGH_MANAGER = "This swarm's tasks exchange through the manager."

Ask = Callable[[str, Any, float, Callable[[Any, BaseException | None], None]], None]


class DirectExchange:
    """Of the attempts of one runtime, one after another."""

    def __init__(self, actor: Actor, ask: Ask) -> None:
        self._actor = actor
        self._ask = ask
        self._instance: Instance | None = None
        """The attempt that runs, or ran last."""
        self.is_direct = False
        self._has_asked = False
        self._has_connection = False
        self.lives_on = True
        """Whether the process goes on when an attempt has finished, as far as that is known."""

    def begins(self, assignment: Assignment) -> None:
        self._instance, self.is_direct = assignment.instance, assignment.direct
        self._has_asked = self._has_connection = False

    def is_used_by(self, instance: Instance) -> bool:
        """Whether the attempt has asked for a connection."""
        return self._has_asked and instance == self._instance

    def connect(
        self,
        request: light.Request,
        relay: Callable[[Any, Callable[[Any], None]], None],
        sums: SumLimit | None = None,
    ) -> None:
        """`relay` asks the keeper, and fails the request if that fails. With `sums` it may tell
        others something in these alone."""
        if not self.is_direct:
            request.reply.fail("RequestFailed", THROUGH_MANAGER)
            return
        self._has_asked = True

        def connected(end: Any) -> None:
            if request.instance == self._instance:
                self._has_connection = True
            request.reply.set(end)

        relay(Connect(request.instance, self._actor.ref.address.path, sums), connected)

    def end(self, ended: TaskEnded, then: Callable[[TaskEnded], None]) -> None:
        """Calls `then` with the attempt's end once what it said outlives the node, or with another
        end, since it does not."""

        def answered(is_kept: Any, error: BaseException | None) -> None:
            if error is not None:
                self._actor.log.error("%s: the plane did not answer: %s", ended.instance, error)
            how = ""
            if isinstance(error, TimeoutError):
                how = f"what it told others was not on the node's disk within {TIMEOUT:g} s"
            then(ended if is_kept else self._unkept(ended, how))

        counts = ended.state is _FINISHED
        is_gone = counts and not self.lives_on
        self._ask(PLANE, EndExchange(ended.instance, counts, is_gone), TIMEOUT, answered)

    def end_now(self, ended: TaskEnded) -> TaskEnded:
        """The same where nothing can be waited for."""
        self._actor.notify(PLANE, EndExchange(ended.instance, counts=False))
        return self._unkept(ended)

    def _unkept(self, ended: TaskEnded, how: str = "") -> TaskEnded:
        if not self._has_connection or ended.state not in (_FINISHED, AttemptState.FAILED):
            return ended  # it was ended for another reason
        state, error = AttemptState.INTERRUPTED, plane_lost(ended.instance, how)
        return msgspec.structs.replace(ended, state=state, output=None, error=error)
