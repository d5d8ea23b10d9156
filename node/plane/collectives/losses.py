"""What a roster says of the members of a call: who will not come, and who is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manta.node.plane.collectives.calls import Call, Wait
from manta.protocol.roster import Roster, RosterTask
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.transports.collectives.calls import Kind

LOST = "its node was lost"
FORGOT = "its node began anew, with instances that had ended by then"


def why_lost(task: RosterTask, rank: int) -> str:
    """Why the instance will make no further call; empty if it may."""
    if rank >= len(task.instances):
        return ""
    one = task.instances[rank]
    if one.given_up:
        return one.given_up
    return "it has finished without that call" if has_finished(task, rank) else ""


def has_finished(task: RosterTask, rank: int) -> bool:
    return task.instances[rank].state == AttemptState.FINISHED


def tell_losses(call: Call, task: RosterTask, is_there: Callable[[str], bool]) -> None:
    """Members of this plane that will not make the call, and nodes that are no more."""
    meeting, machine = call.meeting, call.meeting.machine
    for rank in call.own:
        is_open = rank not in machine.come and rank not in machine.away
        if is_open and (why := why_lost(task, rank)):
            meeting.member_lost(rank, why, has_ended=has_finished(task, rank))
    for peer, ranks in enumerate(meeting.placement.ranks):
        if peer == call.me or is_there(call.nodes[peer]) or set(ranks) <= machine.away.keys():
            continue
        ended = [rank for rank in ranks if has_finished(task, rank)]
        meeting.peer_lost(peer, task.instances[ranks[0]].given_up or LOST, ended)


def forgotten(call: Call, task: RosterTask) -> list[int]:
    """Peers whose planes forgot what members gave that have ended, and will not give it again."""
    come = call.meeting.machine.come
    return [
        call.nodes.index(node)
        for node in call.gone
        if any(why_lost(task, rank) for rank in come.intersection(call.ranks_on(node)))
    ]


def deadlock(call: Call, task: RosterTask) -> str:
    """Why it can never be complete, or nothing."""
    machine = call.meeting.machine
    if machine.call is None:
        return ""
    return waits.deadlock(task, machine.call.words, machine.come, lambda one: one.places or None)


def outlook(
    wait: Wait, call: Call | None, roster: Roster | None, is_there: Callable[[str], bool]
) -> str:
    """Whom it waits for."""
    operation = waits.operation(wait.body.words)
    task = None if roster is None else roster.tasks.get(wait.name.task)
    if task is None:
        return f"{operation} waits for the roster of the swarm"
    if call is None or wait.is_parked:
        missing = [one.rank for one in task.instances if not is_there(one.node_id)]
        missing += range(len(task.instances), task.size)
        if missing:
            return waits.missing(task, operation, missing).sentence
        return f"{operation} waits for others to come to the collectives before it"
    wanted: Iterable[int] = range(task.size)
    if wait.body.kind is Kind.SCATTER:
        wanted = [wait.body.root]
    late = [rank for rank in wanted if rank not in call.meeting.machine.come]
    if late:
        return waits.missing(task, operation, late).sentence
    return call.meeting.machine.waits_for() or f"{operation} is being carried out"


def too_far(task: str, number: int) -> str:
    """Of a call that others here are far from."""
    return (
        f"Collective {number} of {task!r} is called, and its instances on another node have come "
        "to none of the thousands before it."
    )


def too_many_failed(task: str) -> str:
    """Of a call after too many that failed."""
    return (
        f"Too many collectives of {task!r} have failed in this iteration: what went wrong first "
        "says why."
    )


def no_more(task: str, number: int) -> str:
    """Of a call that would have to be begun anew with what is kept no longer."""
    return (
        f"What instances gave to collective {number} of {task!r} is kept no longer on one of their "
        "nodes, for want of room (value_memory_mb): go on from a checkpoint."
    )


def moved(task: str, number: int) -> str:
    """Of a call that goes on where others are."""
    return (
        f"Collective {number} of {task!r} was begun anew with its instances on other nodes: it "
        "goes on without this attempt."
    )


def without(task: str, number: int, node: str) -> str:
    """Of a call that does not wait for a node's instances any more."""
    return f"Collective {number} of {task!r} goes on without what is on {node}, which was lost."
