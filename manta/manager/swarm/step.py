"""One event on its way through the machine: what it changes, and the actions it leads to."""

from __future__ import annotations

from collections.abc import Sequence

from manta.manager.swarm import sentences
from manta.manager.swarm.events import Action, Publish, Released, Revoke, StateChanged, Woken
from manta.manager.swarm.graph import Graph
from manta.manager.swarm.state import Attempt, SwarmData
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.user import EventItem
from manta.protocol.values import BlobRef


class Step:
    """`now` is the time of the event, `actions` what it has led to so far, in order."""

    def __init__(self, data: SwarmData, now: float) -> None:
        self.data = data
        self.now = now
        self.actions: list[Action] = []
        self.act = self.actions.append

    @property
    def graph(self) -> Graph:
        return self.data.graph

    def tell(self, kind: str, sentence: str, alias: str = "") -> None:
        """Tells users something of the swarm or of one task."""
        self._publish(EventItem(self.now, kind, sentence, self.data.iteration, alias))

    def tell_of(
        self, attempt: Attempt, kind: str, sentence: str, fraction: float | None = None
    ) -> None:
        """Tells users something of one attempt."""
        at, node = attempt.instance, attempt.node_alias
        self._publish(
            EventItem(self.now, kind, sentence, at.iteration, at.alias, at.index, node, fraction)
        )

    def _publish(self, item: EventItem) -> None:
        self.data.events.append(item)
        self.act(Publish("events"))

    def release(self, blobs: Sequence[BlobRef], *, deleted: bool = False) -> None:
        """Releases those of the blobs that nothing names any more."""
        needed = self.data.needed(blobs)
        gone = dict.fromkeys(blob for blob in blobs if blob.digest not in needed)
        if gone:
            self.act(Released(tuple(gone), deleted))

    def close(self, attempt: Attempt, state: AttemptState) -> None:
        """Ends a live attempt: nothing that it says from now on has an effect."""
        attempt.state = state
        if attempt.ended_at is None:
            attempt.ended_at = self.now
        self.data.remove_live(attempt)
        self.act(Revoke(attempt.node_id, attempt.instance))
        self.data.exchange.end_attempt(attempt.instance, counts=state is AttemptState.FINISHED)
        self.act(Woken())  # polls that wait for it may have to fail now

    def settle(self, attempt: Attempt) -> None:
        """The results of an attempt that has ended count for good."""
        if attempt.written:
            self.data.count_results_of(attempt)
            self.act(Publish("results"))

    def cancel(self, attempt: Attempt, why: str) -> None:
        attempt.error = sentences.cancelled(attempt, why)
        self.close(attempt, AttemptState.CANCELLED)

    def enter(self, state: SwarmState, reason: str, *, kill: bool = False) -> None:
        """The swarm is in another state from now on."""
        self.data.state, self.data.reason = state, reason
        self.tell("state", sentences.state(self.data))
        self.act(StateChanged(state, reason, kill))

    def end(self, state: SwarmState, reason: str, *, kill: bool = False) -> None:
        """Ends the swarm, unless it has ended already."""
        data = self.data
        if data.state.final:
            return
        for attempt in list(data.live.values()):
            self.cancel(attempt, sentences.swarm_over(state, reason))
            self.settle(attempt)
        data.asks.clear()
        self.release([*data.exchange.clear(), *data.forget_replaced()])
        data.ended_at = self.now
        self.enter(state, reason, kill=kill)

    def fail(self, reason: str) -> None:
        self.end(SwarmState.FAILED, reason)
