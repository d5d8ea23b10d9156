"""What a task that waits for others is told: the value, whom it waits for, or why none comes.

Reading changes nothing. An answer is `ready`, or says who is waited for, or has an `error`, a
kind of `manta.light.errors`, when the wait can never end.
"""

from __future__ import annotations

from itertools import islice, starmap
from typing import assert_never

from manta.actors.errors import Refused
from manta.manager.swarm import networks
from manta.manager.swarm.exchange import AHEAD, SAID, Collective, Topic
from manta.manager.swarm.letters import (
    KEPT,
    LOGGED,
    RESERVE,
    SHARE,
    UNREAD,
    Box,
    Most,
    Room,
    Route,
    Sender,
)
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.meetings import Nodes, deadlock, has_waited, outcome_is_read
from manta.manager.swarm.sentences import label
from manta.manager.swarm.state import SwarmData
from manta.protocol.base import Instance
from manta.protocol.codes import Code
from manta.protocol.exchange import (
    CheckNext,
    Checkpoint,
    Contribution,
    Exchanged,
    ExchangeRead,
    PeerInstance,
    PeerInstances,
    ReadBroadcast,
    ReadCheckpoint,
    ReadContributions,
    ReadLock,
    ReadMessage,
    ReadPeers,
    ReadRoom,
    ResolvePeer,
)
from manta.protocol.names import listed, meant
from manta.protocol.pages import fitting
from manta.protocol.values import Inline, Payload
from manta.roster import waits
from manta.roster.waits import Outlook


def topic_of(data: SwarmData, read: ExchangeRead) -> Topic:
    """The topic whose change may end the wait."""
    at = read.instance
    match read:
        case ReadBroadcast(tag=tag):
            return ("broadcast", at.iteration, tag)
        case ReadMessage(source=source, tag=tag):
            attempt = data.live.get(at)  # one that has ended waits for nothing
            return ("message", source, "" if attempt is None else attempt.node_id, tag)
        case ReadRoom(to=to):
            return ("room", to)
        case ReadContributions(number=number):
            return ("collective", at.iteration, at.alias, number)
        case ReadLock(name=name):
            return ("lock", name)
        case ReadPeers() | ReadCheckpoint():
            return ("checkpoint",)
        case _:
            assert_never(read)


def answer(
    machine: SwarmMachine, read: ExchangeRead, most: Most, nodes: Nodes = tuple
) -> Exchanged | PeerInstances | Checkpoint:
    """What the waiting task is told as things stand; `most` are the letters that the swarm may
    have, and `nodes` those of the cluster. Raises Refused."""
    data, at = machine.data, read.instance
    if at not in data.live:
        return nothing_for(read)
    match read:
        case ReadPeers():
            return PeerInstances(_peers(data, at))
        case ReadCheckpoint():
            key = Sender(at.iteration, at.alias, at.index)
            return Checkpoint(data.exchange.checkpoints.get(key))
        case ReadBroadcast():
            return _broadcast(machine, read)
        case ReadMessage():
            return _message(machine, read)
        case ReadRoom() if data.exchange.post.logged >= LOGGED:
            return _never(
                "ResourceExhaustionError",
                f"The event log holds {mib(data.exchange.post.logged)} of what the tasks of this "
                f"swarm said to each other, of at most {mib(LOGGED)}: say less, or values over "
                "64 KiB, which do not count.",
            )
        case ReadRoom(to=to):
            return _room(data, read, most, nodes) if to else _room_for_all(data, read)
        case ReadContributions():
            return _contributions(machine, read, nodes)
        case ReadLock():
            return _lock(data, read)
        case _:
            assert_never(read)


def ended(read: ExchangeRead | ResolvePeer | CheckNext) -> str:
    """What is said of an attempt that is not live, or not the sender's."""
    return f"{read.instance} was ended: it waits for nothing any more."


def nothing_for(read: ExchangeRead) -> Exchanged:
    """Answers who asks for such an attempt. Raises Refused."""
    if isinstance(read, ReadPeers | ReadCheckpoint):
        raise Refused(Code.WRONG_STATE, ended(read))
    return _never("SwarmStopped", ended(read))


def check_peer(machine: SwarmMachine, at: Instance, node_id: str, alias: str) -> None:
    """Raises Refused if the instance may not talk to that node."""
    data = machine.data
    network = data.graph.tasks[at.alias].network
    if network is None or at not in data.live:
        return
    if node_id not in networks.may_hear(data, at):
        raise Refused(
            Code.NOT_A_NEIGHBOR,
            f"{label(data.live[at])} may not talk to {alias}: in the network {network!r} "
            f"({data.graph.networks[network].topology}) they are not neighbors.",
        )


def check_next(machine: SwarmMachine, alias: str | None) -> None:
    """Raises Refused if the next iteration cannot begin with that task."""
    if alias is not None and alias not in machine.data.graph.tasks:
        raise Refused(
            Code.UNKNOWN_TASK,
            f"schedule_next_iter was called for {alias!r}, which is not a task of this swarm; name "
            f"one of {listed(sorted(machine.data.graph.tasks))}."
            + meant(alias, machine.data.graph.tasks),
        )


def _never(error: str, sentence: str) -> Exchanged:
    return Exchanged(False, error=error, sentence=sentence)


def _waits(outlook: Outlook) -> Exchanged:
    return Exchanged(False, error=outlook.error, sentence=outlook.sentence)


def _given(value: Payload | None, rank: int = -1) -> Exchanged:
    return Exchanged(True, (Contribution(rank, value),))


# Broadcasts and messages.


def _broadcast(machine: SwarmMachine, read: ReadBroadcast) -> Exchanged:
    data, at = machine.data, read.instance
    latest = data.exchange.broadcasts.get((at.iteration, read.tag), {})
    if latest:
        network = data.graph.tasks[at.alias].network
        allowed = networks.may_hear(data, at)
        for sender, said in reversed(latest.items()):
            same = data.graph.tasks[sender.alias].network == network
            if same and (network is None or said.node_id in allowed):
                return _given(said.value, sender.rank)
    return _waits(waits.broadcast(machine.roster(), at, read.tag))


def _message(machine: SwarmMachine, read: ReadMessage) -> Exchanged:
    data, at = machine.data, read.instance
    route = Route(read.source, data.live[at].node_id, read.tag)
    if (letter := data.exchange.post.claimed(at, route, read.number)) is not None:
        return _given(letter.value)
    return _waits(waits.letter(machine.roster(), at, read.source, read.tag))


def room(data: SwarmData, at: Instance, to: str, most: Most) -> Room:
    """How much the attempt may send to the node now."""
    return data.exchange.post.room(to, at.alias, at.index, most)


def _room(data: SwarmData, read: ReadRoom, most: Most, nodes: Nodes) -> Exchanged:
    post, found = data.exchange.post, room(data, read.instance, read.to, most)
    if found.letters and found.size >= read.size:
        return Exchanged(True, letters=found.letters, size=found.size)
    node = next((node.alias for node in nodes() if node.id == read.to), read.to)
    kept = post.kept
    if post.unread.letters >= most.letters:
        return Exchanged(
            False,
            sentence=f"the swarm has {post.unread.letters:,} unread letters of at most "
            f"{most.letters:,}, its quota of messages: have it receive more, or send less",
        )
    if kept.letters >= KEPT.letters or kept.size >= most.size:
        return Exchanged(
            False,
            sentence=f"the swarm keeps {kept.letters:,} letters of at most {KEPT.letters:,} "
            f"({mib(kept.size)} of {mib(most.size)}): what an attempt received is kept until it "
            "ends, for one that may take its place",
        )
    box = post.boxes.get(read.to, Box())
    (alias, rank), mine = max(box.of.items(), key=lambda one: (one[1].letters, one[0]))
    return Exchanged(
        False,
        sentence=f"{node} has {box.all.letters:,} unread letters of at most {UNREAD.letters:,} "
        f"({mib(box.all.size)} of {mib(UNREAD.size)}), {mine.letters:,} of them from "
        f"{alias}.{rank}; beyond that each instance has {RESERVE.letters} "
        f"({mib(RESERVE.size)}): have it receive more, or send less",
    )


def _room_for_all(data: SwarmData, read: ReadRoom) -> Exchanged:
    at, kept = read.instance, data.exchange.kept
    if kept.letters >= SAID.letters or kept.size + read.size > SAID.size:
        return _never(
            "ResourceExhaustionError",
            f"{kept.letters:,} broadcasts, contributions and checkpoints ({mib(kept.size)}) are "
            f"kept until this iteration ends, of at most {SAID.letters:,} ({mib(SAID.size)}): "
            "spread them over more iterations, or send values over 64 KiB, which are kept on disk.",
        )
    run, calls = data.runs[at.iteration][at.alias], data.exchange.calls.get(at.alias, {})
    mine = calls.get(at.index, -1)
    behind = [
        instance.last
        for rank, instance in enumerate(run.instances)
        if instance.is_open and mine - calls.get(rank, -1) > AHEAD
    ]
    if behind:
        return Exchanged(
            False,
            sentence=f"{at.alias}.{at.index} is more than {AHEAD:,} collectives ahead of "
            + listed([f"{label(one)} on {one.node_alias}" for one in behind]),
        )
    return Exchanged(True, letters=SHARE.letters, size=SHARE.size)


def mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


# Collectives.


def _contributions(machine: SwarmMachine, read: ReadContributions, nodes: Nodes) -> Exchanged:
    data, at = machine.data, read.instance
    roster = machine.roster()
    task = roster.tasks[at.alias]
    key = (at.iteration, at.alias, read.number)
    collective = data.exchange.collectives.get(key) or Collective()
    if problem := waits.cannot_meet(roster, at.alias):
        return _never("CollectiveError", problem)
    if problem := _differ(data, read):
        return _never("CollectiveError", problem)
    wanted = read.ranks or range(task.size)
    there = {  # a part for the reader alone goes before one for all
        rank: collective.parts[key]
        for rank in wanted
        for key in ((rank, None), (rank, at.index))
        if key in collective.parts
    }
    missing = [rank for rank in wanted if rank not in there]
    lost = waits.lost(task, missing)
    enough = len(wanted) if read.enough is None else min(read.enough, len(wanted))
    goes_on = read.on_loss == "continue" and lost and lost == missing
    if len(there) >= enough or read.partial or goes_on:
        rest = starmap(Contribution, islice(there.items(), read.after, None))
        shown, more = fitting(rest, _bytes)
        return Exchanged(True, tuple(shown), more, tuple(lost))
    if lost and read.on_loss == "raise" and len(wanted) - len(lost) < enough:
        return _waits(waits.in_vain(task, read.kind, lost))
    if stuck := deadlock(data, read, task, nodes):
        return _never("CollectiveError", stuck)
    return _waits(waits.missing(task, read.kind, missing))


def _calls(data: SwarmData, at: Instance, number: int) -> dict[int, str]:
    """By rank, what was called."""
    found = data.exchange.collectives.get((at.iteration, at.alias, number))
    return {} if found is None else found.kinds


def _differ(data: SwarmData, read: ReadContributions) -> str:
    """Which two instances do not make the same call, or nothing.

    Who did not wait in the call before this one hears of that one here.
    """
    at = read.instance
    before, here = _calls(data, at, read.number - 1), _calls(data, at, read.number)
    heard = not outcome_is_read(read) and has_waited(before.get(at.index), at.index)
    own_too = [(at.index, read.kind), *here.items()]
    for sides in ([] if heard else list(before.items()), own_too):
        if len({kind for _, kind in sides}) < 2:
            continue
        one, kind = sides[0]
        other, another = next(side for side in sides if side[1] != kind)
        return (
            f"{at.alias}.{one} called {kind} where {at.alias}.{other} called {another}: all "
            f"instances of {at.alias!r} must make the same calls in the same order."
        )
    return ""


def _bytes(one: Contribution) -> int:
    return 100 + (len(one.value.data) if isinstance(one.value, Inline) else 0)


# Locks and peers.


def _lock(data: SwarmData, read: ReadLock) -> Exchanged:
    queue = data.exchange.locks.get(read.name, [])
    if read.instance not in queue:
        return _never("NothingSent", f"The lock {read.name!r} was not asked for.")
    if queue[0] == read.instance:
        return _given(None)
    holder = data.live[queue[0]]  # who ends leaves the queue
    where = f"{label(holder)} on {holder.node_alias}"
    return Exchanged(False, sentence=f"the lock {read.name!r} is held by {where}")


def _peers(data: SwarmData, at: Instance) -> tuple[PeerInstance, ...]:
    run = data.runs[at.iteration][at.alias]
    later = () if run.nodes else run.queued
    return tuple(
        PeerInstance(rank, one.node_id, one.node_alias, run.shares[rank])
        for rank, one in enumerate([*(instance.last for instance in run.instances), *later])
        if not run.nodes or rank == at.index or run.instances[rank].is_open
    )
