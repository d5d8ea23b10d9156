"""How many answers are enough for a task, and how long the others are waited for. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from manta.manager.swarm.state import InstanceRun, TaskRun
from manta.protocol.states import AttemptState

SPREAD = 5.0
"""Median absolute deviations by which an answer may be later than the median."""
TWICE, SLACK = 2.0, 1.0
"""However close together the others answered: so many times their median, and seconds more."""


def quorum_of(fraction: float, size: int) -> int:
    """How many of `size` a quorum is; at least one."""
    return max(1, math.ceil(fraction * size - 1e-9))


def need_of(run: TaskRun) -> int:
    """How many answers are enough as things stand."""
    quorum = run.spec.quorum
    if quorum is None:
        return run.size
    if quorum == "alive":  # all that can still answer, and at the deadline those that have
        return 1 if run.overdue else max(1, run.size - run.given_up)
    return quorum_of(quorum, run.size)


def was_lost(instance: InstanceRun) -> bool:
    """Whether it is given up for want of its node."""
    error = instance.last.error
    return bool(instance.given_up) and error is not None and error.kind == "NodeLost"


def failed(run: TaskRun) -> InstanceRun | None:
    """The first that is given up though its node is there."""
    return next((one for one in run.instances if one.given_up and not was_lost(one)), None)


def deadline_of(run: TaskRun) -> float | None:
    """Seconds from its placing; None if there is no deadline, or not enough have answered yet.

    With "auto" it follows from how long the others took, once the quorum has answered, or half of
    the instances where all that are alive are waited for.
    """
    deadline = run.spec.deadline
    if deadline != "auto":
        return deadline
    quorum = run.spec.quorum
    share = 0.5 if quorum is None or quorum == "alive" else quorum
    if run.finished < quorum_of(share, run.size):
        return None
    return patience(
        [
            max(0.0, (one.last.ended_at or 0.0) - run.placed_at)
            for one in run.instances
            if one.last.state is AttemptState.FINISHED
        ]
    )


def patience(took: Sequence[float]) -> float:
    """Seconds after which who has not answered is late, by the seconds that the others took.

    The median and the median absolute deviation are not moved by a few that took very long
    (Leys et al. 2013).
    """
    middle = median(took)
    deviation = median(abs(one - middle) for one in took)
    return max(middle + SPREAD * deviation, TWICE * middle) + SLACK
