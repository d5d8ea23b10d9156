"""What a roster says of the members of a call: who will not come, and who is waited for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from manta.node.plane.collectives.calls import Call, Wait
from manta.node.plane.collectives.kept import Calls
from manta.node.plane.collectives.messages import CallName, Places
from manta.node.plane.collectives.post import LONGEST
from manta.node.plane.value_room import KeptNoLonger
from manta.protocol.roster import Roster, RosterTask
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.transports.collectives.calls import Kind

MIB = 1 << 20
LOST = "its node was lost"


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
        if call.nodes[peer] in call.left:
            continue
        ended = [rank for rank in ranks if has_finished(task, rank)]
        meeting.peer_lost(peer, task.instances[ranks[0]].given_up or LOST, ended)


def stands(call: Call, task: RosterTask | None, before: RosterTask | None = None) -> bool:
    """Can a call that is over here have come to nothing else, also where others went on without
    this plane? They need what a member here gave, which has finished and gives it no more; it is
    the same attempt as `before`, if that is given, when what came of the call counted."""
    it = call.meeting.machine.call
    if call.meeting.machine.outcome is None or it is None or task is None:
        return False
    if it.on_lost == "continue":
        return False
    return any(
        has_finished(task, rank)
        and task.instances[rank].node_id == call.nodes[call.me]
        and (before is None or before.instances[rank].attempt == task.instances[rank].attempt)
        for rank in call.own
    )


def deadlock(call: Call, task: RosterTask) -> str:
    """Why it can never be complete, or nothing."""
    machine = call.meeting.machine
    if machine.call is None:
        return ""
    return waits.deadlock(task, machine.call.words, machine.come, lambda one: one.places or None)


def outlook(
    wait: Wait,
    call: Call | None,
    roster: Roster | None,
    is_there: Callable[[str], bool],
    full: str | None,
    *,
    is_read: bool,
) -> str:
    """Whom it waits for; `full` is a node that has yet to hear more before it can be begun, and
    `is_read` says whether what was kept of it is being read."""
    operation = waits.operation(wait.body.words)
    task = None if roster is None else roster.tasks.get(wait.name.task)
    if task is None:
        return f"{operation} waits for the roster of the swarm"
    if wait.settles:
        return (
            f"{operation} waits until the manager has taken what {wait.name.task}.{wait.rank} "
            "wrote before it"
        )
    if call is None or wait.is_parked:
        missing = [one.rank for one in task.instances if not is_there(one.node_id)]
        missing += range(len(task.instances), task.size)
        if missing:
            return waits.missing(task, operation, missing).sentence
        if full is not None:
            aliases = {one.node_id: one.node_alias for one in task.instances}
            return (
                f"{operation} waits until {aliases.get(full, full)} has taken what it was told of "
                "the collectives before it"
            )
        if is_read:
            return f"{operation} waits until its node has read from disk what was kept of it"
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


def too_much_said(task: str, node: str, most: int) -> str:
    """Of a call after too many that wait for the instances here."""
    return (
        f"What is on {node} has called so many collectives of {task!r} before instances on another "
        f"node have that it takes more than {most / MIB:,.0f} MiB there: have them wait for each "
        "other, or give the nodes more (value_memory_mb, of which it is an eighth)."
    )


def why_not(calls: Calls, name: CallName, now: Places) -> str:
    """Why a call that is not known is not begun, if so. One that was refused is, at later places,
    as others may have what came of it before."""
    if (refused := calls.refused(name)) is not None:
        return refused.why if now.order <= refused.places.order else ""
    return too_many_failed(name.task) if calls.is_full else ""


def too_long_here(name: CallName, node: str, size: int, most: int) -> str:
    """Of a call of which another node says more at once than there is room for."""
    return (
        f"What is on {node} says {size / MIB:,.1f} MiB of collective {name.number} of "
        f"{name.task!r} at once. Another node has room for {max(0, most) / MIB:,.1f} MiB of what "
        "is small and of one swarm, with what it keeps of calls before: give it more "
        "(value_memory_mb, of which it is seven eighths of a quarter), make fewer calls in an "
        "iteration, or give the task fewer instances on a node."
    )


def too_many_failed(task: str) -> str:
    """Of a call after too many that failed."""
    return (
        f"Too many collectives of {task!r} have failed in this iteration: what went wrong first "
        "says why."
    )


def no_more(call: Call) -> str:
    """Of a call that would have to be begun anew with what is kept here no longer."""
    what = f"What instances gave to collective {call.name.number} of {call.name.task!r}"
    return str(KeptNoLonger(what, call.meeting.placement.nodes[call.me]))


def moved(task: str, number: int) -> str:
    """Of a call that goes on where others are."""
    return (
        f"Collective {number} of {task!r} was begun anew with its instances on other nodes: it "
        "goes on without this attempt."
    )


def without(task: str, number: int, node: str) -> str:
    """Of a call that does not wait for a node's instances any more."""
    return f"Collective {number} of {task!r} goes on without what is on {node}, which was lost."


def too_long(name: CallName, size: int) -> str:
    """Of a call of which a node would have to tell another more than a message may have."""
    return (
        f"What one node is to tell another of collective {name.number} of {name.task!r} takes "
        f"{size / MIB:,.1f} MiB at once, of at most {LONGEST / MIB:,.0f} MiB: give the task fewer "
        "instances, or its values fewer parts."
    )
