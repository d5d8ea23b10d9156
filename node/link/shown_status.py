"""What the operator sees of the connection to the manager: in `status.json`, and in the log."""

from __future__ import annotations

import os

from manta.actors import Actor
from manta.node.shared.context import NodeContext
from manta.node.state import Identity, Status

BUSINESS_AS_USUAL = "connected"


class ShownStatus:
    def __init__(self, actor: Actor, context: NodeContext) -> None:
        self._actor = actor
        self._context = context
        self._status: Status | None = None
        self._noticed = ""

    @property
    def state(self) -> str:
        """Empty before the first one."""
        return "" if self._status is None else self._status.state

    def notice(self, sentence: str) -> None:
        """What the manager says is wrong with the node."""
        before, self._noticed = self._noticed, sentence
        if sentence and sentence != before:
            self._actor.log.warning("%s", sentence)

    def say(self, state: str, sentence: str, *, update: bool = False) -> None:
        """Show and log the state. With `update` only the counts change."""
        context, before, log = self._context, self._status, self._actor.log
        if before is not None and (update or before.state == state):
            since = before.since
            sentence = before.sentence if update else sentence
        else:
            since = self._actor.clock.wall()
        identity = context.identity or Identity(context.manager_key)
        status = Status(
            os.getpid(),
            context.config.path.stem,
            state,
            sentence,
            context.config.manager_address,
            identity.alias or context.config.alias,
            since,
            identity.node_id,
            identity.cluster_id,
            context.tasks_running,
            context.tasks_queued,
            self._notices(),
            ", ".join(context.runner.names),
        )
        if status == before:
            return
        if before is None or (before.state, before.sentence) != (state, sentence):
            calm = (BUSINESS_AS_USUAL, "connecting", "stopped")
            level = log.info if state in calm else log.warning
            level("%s", sentence)
        self._status = status
        try:
            context.state.write_status(status)
        except OSError as error:
            log.error("the status cannot be written: %s", error.strerror)

    def _notices(self) -> str:
        trouble = self._context.storage.trouble
        own = f"The node {trouble}: it takes no new work until it can." if trouble else ""
        return " ".join(filter(None, (own, self._context.runner.trouble, self._noticed)))
