"""What is said to a task that waits for others: whom it waits for, or why it waits in vain.

Each function tells what a roster has to do with one kind of wait. What was sent, and who has come
to a collective, is known to whoever answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from manta.protocol.base import Instance
from manta.protocol.names import listed
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.states import AttemptState
from manta.roster.networks import meet

WAITS_FOR_ALL = frozenset({"barrier", "all_reduce", "all_gather", "reduce_scatter"})
"""Kinds of collectives that no instance leaves before all others have come."""

Places = Callable[[RosterInstance], int | None]
"""How many instances of its task an instance's node runs at the same time; None if unknown."""


class Outlook(NamedTuple):
    """Of a wait. `error` is a class of `manta.light.errors` if it can never end, else ""."""

    error: str
    sentence: str


def operation(kind: str) -> str:
    """Of what an instance called, without its options."""
    return kind.partition("(")[0]


def label(task: RosterTask, rank: int) -> str:
    """`worker.1`, or `aggregator` when there is only one."""
    return task.alias if task.size == 1 else f"{task.alias}.{rank}"


def is_open(instance: RosterInstance) -> bool:
    """Whether it may still answer."""
    return not instance.given_up and instance.state != AttemptState.FINISHED


# Broadcasts and letters.


def broadcast(roster: Roster, at: Instance, tag: str) -> Outlook:
    """Of a wait for a broadcast, which has not come."""
    others = list(_may_still_send(roster, at))
    if others:
        return Outlook("", f"nobody has broadcast {tag!r} yet; {listed(others)} still may")
    return Outlook(
        "NothingSent",
        f"Nobody has broadcast {tag!r} in iteration {at.iteration}, and nobody is left "
        "who could: look at the tag, and at who runs at the same time.",
    )


def letter(roster: Roster, at: Instance, source: str, tag: str) -> Outlook:
    """Of a wait for a letter from the node `source`, which has not come."""
    others, name = list(_may_still_send(roster, at, source)), _alias(roster, source)
    if others:
        return Outlook("", f"no message {tag!r} has come from {name}: {listed(others)}")
    return Outlook(
        "PeerLost",
        f"No message {tag!r} has come from {name}, and nothing is left there that could send one.",
    )


def _may_still_send(roster: Roster, at: Instance, node_id: str | None = None) -> Iterator[str]:
    """Who may still send in this iteration, apart from the reader and the tasks after it."""
    if at.iteration != roster.iteration:
        return
    after = _downstream(roster, at.alias)
    for task in roster.tasks.values():
        if soon := _may_come(task, at, after):
            yield soon
        if task.phase == "RUNNING":
            for one in task.instances:
                if node_id in (None, one.node_id) and _may_send(task, one, at):
                    yield f"{label(task, one.rank)} on {one.node_alias}"


def may_still_send(
    roster: Roster, at: Instance, there: Iterable[tuple[RosterTask, RosterInstance]]
) -> bool:
    """Whether a wait for a broadcast or a letter has an outlook without error: `there` are all
    instances that could send, or those on the node from which a letter is to come."""
    if at.iteration != roster.iteration:
        return False
    after = _downstream(roster, at.alias)
    return any(_may_come(task, at, after) for task in roster.tasks.values()) or any(
        task.phase == "RUNNING" and _may_send(task, one, at) for task, one in there
    )


def _may_come(task: RosterTask, at: Instance, after: Collection[str]) -> str:
    """Which instances of the task have no node yet, or nothing."""
    if task.phase == "PLACING" or (task.phase == "WAITING" and task.alias not in after):
        return f"{task.alias} (not placed yet)"
    turns = task.alias != at.alias or not task.sequential
    if task.phase == "RUNNING" and task.has_queued and turns:
        return f"{task.alias} (whose turn has not come)"
    return ""


def _may_send(task: RosterTask, one: RosterInstance, at: Instance) -> bool:
    reads = (task.alias, one.rank, one.attempt) == (at.alias, at.index, at.attempt)
    return is_open(one) and not reads


def _downstream(roster: Roster, alias: str) -> set[str]:
    found, todo = set[str](), [alias]
    while todo:
        new = set(roster.tasks[todo.pop()].followed_by) - found
        found |= new
        todo += new
    return found


# Collectives.


def cannot_meet(roster: Roster, alias: str) -> str:
    """Why the instances of a task can have no collective at all, or nothing."""
    task = roster.tasks[alias]
    if task.sequential and task.size > 1:
        return (
            f"The instances of {alias!r} run one after another (sequential), so they cannot "
            "meet in a collective: schedule it as parallel."
        )
    if task.windowed:
        return (
            f"The {task.size} instances of {alias!r} are more than run at the same time, so they "
            "cannot meet in a collective: give it fewer replicas."
        )
    if meet(roster, task):
        return ""
    return (
        f"The edges of the network {task.network!r} do not join all instances of {alias!r}, so "
        "they cannot meet in a collective: add edges."
    )


def lost(task: RosterTask, ranks: Iterable[int]) -> list[int]:
    """Those of the ranks that will never come: they were given up, or finished without it."""
    there = task.instances
    return [rank for rank in ranks if rank < len(there) and not is_open(there[rank])]


def in_vain(task: RosterTask, kind: str, ranks: Iterable[int]) -> Outlook:
    """Of a collective that needs these, who are lost."""
    named = listed([standing(task, rank) for rank in ranks])
    return Outlook("PeerLost", f"{operation(kind)} waits for {named} in vain.")


def missing(task: RosterTask, kind: str, ranks: Iterable[int]) -> Outlook:
    """Of a collective that waits for these."""
    named = listed([standing(task, rank) for rank in ranks])
    return Outlook("", f"{operation(kind)} waits for {named}")


def standing(task: RosterTask, rank: int) -> str:
    name = f"{task.alias}.{rank}"
    if rank >= len(task.instances):
        return f"{name} (not placed yet)"
    instance = task.instances[rank]
    if instance.given_up:
        return f"{name} ({instance.given_up})"
    finished = instance.state == AttemptState.FINISHED
    how = "it has finished without that call" if finished else instance.state.lower()
    return f"{name} on {instance.node_alias} ({how})"


def deadlock(task: RosterTask, kind: str, come: Collection[int], places: Places) -> str:
    """Why the collective can never be complete, or nothing: an instance is queued on a node of
    which every place is taken by instances that have come, and wait in this collective."""
    if operation(kind) not in WAITS_FOR_ALL:
        return ""
    here = [one for one in task.instances if not AttemptState(one.state).final]
    late_on = dict.fromkeys(one.node_id for one in here if _is_late(one, come))
    for node_id in late_on:
        attempts = [one for one in here if one.node_id == node_id]
        queued = [one for one in attempts if _is_late(one, come)]
        holders = [one for one in attempts if one.state == AttemptState.RUNNING]
        room = places(queued[0])
        if room is None or len(holders) < room or not all(one.rank in come for one in holders):
            continue
        many = f"has {room} place{'s' * (room != 1)} for {len(attempts)} of them"
        are = "is" if len(queued) == 1 else "are"
        return (
            f"{operation(kind)} can never end: {_names(task, queued)} {are} queued on "
            f"{queued[0].node_alias} behind {_names(task, holders)}, which wait for them there "
            f"(the node {many}); give {task.alias!r} fewer replicas, or its nodes more places "
            "(max_concurrent_tasks)."
        )
    return ""


def _is_late(one: RosterInstance, come: Collection[int]) -> bool:
    """It has not begun, being queued or started, and has not come."""
    return one.state == AttemptState.PLACED and one.rank not in come


def _alias(roster: Roster, node_id: str) -> str:
    """Of a node; its id if no instance was placed there."""
    instances = (one for task in roster.tasks.values() for one in task.instances)
    return next((one.node_alias for one in instances if one.node_id == node_id), node_id)


def _names(task: RosterTask, instances: Sequence[RosterInstance]) -> str:
    return listed([label(task, one.rank) for one in instances])
