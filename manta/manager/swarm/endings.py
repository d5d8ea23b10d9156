"""How attempts are closed, and how the swarm enters another state or ends."""

from __future__ import annotations

from manta.manager.swarm import sentences
from manta.manager.swarm.events import Revoke, StateChanged, Woken
from manta.manager.swarm.runs import Attempt
from manta.manager.swarm.step import Step
from manta.protocol.states import AttemptState, SwarmState


def close(step: Step, attempt: Attempt, state: AttemptState) -> None:
    """Ends a live attempt: nothing that it says from now on has an effect."""
    data, instance = step.data, attempt.instance
    attempt.state = state
    if attempt.ended_at is None:
        attempt.ended_at = step.now
    data.remove_live(attempt)
    step.act(Revoke(attempt.node_id, instance))
    counts = state is AttemptState.FINISHED
    data.exchange.attempt_ended(instance, counts=counts)
    step.act(Woken())  # whoever waits for it may wait in vain


def cancel(step: Step, attempt: Attempt, why: str) -> None:
    attempt.error = sentences.cancelled(attempt, why)
    close(step, attempt, AttemptState.CANCELLED)


def enter(step: Step, state: SwarmState, reason: str, *, kill: bool = False) -> None:
    """The swarm is in another state from now on."""
    step.data.state, step.data.reason = state, reason
    step.tell("state", sentences.state(step.data))
    step.act(StateChanged(state, reason, kill))


def end(step: Step, state: SwarmState, reason: str, *, kill: bool = False) -> None:
    """Ends the swarm, unless it has ended already."""
    data = step.data
    if data.state.final:
        return
    for attempt in list(data.live.values()):
        cancel(step, attempt, sentences.swarm_over(state, reason))
    data.asks.clear()
    step.release([*data.exchange.clear(), *data.forget_replaced()])
    data.ended_at = step.now
    enter(step, state, reason, kill=kill)


def fail(step: Step, reason: str) -> None:
    end(step, SwarmState.FAILED, reason)
