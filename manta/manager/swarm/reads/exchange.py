"""What a task that waits for others is told: what it waits for, for whom, or why it never comes.

Reading changes nothing. An answer is `ready`, or tells whom is waited for, or has an `error`:
a kind of `manta.light.errors`, when the wait can never end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import assert_never

from manta.actors.errors import Refused
from manta.manager.placement.names import listed
from manta.manager.swarm import networks
from manta.manager.swarm.exchange import Collective, Route, Sender, Topic
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.runs import Phase, TaskRun
from manta.protocol.base import Instance
from manta.protocol.codes import Code
from manta.protocol.exchange import (
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
)
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.states import AttemptState
from manta.protocol.values import Inline, Payload

SHOWN = 6
"""Instances named in one sentence."""


def topic_of(read: ExchangeRead) -> Topic:
    """What may end the wait for it."""
    at = read.instance
    match read:
        case ReadBroadcast(tag=tag):
            return ("broadcast", at.iteration, tag)
        case ReadMessage():
            return ("message",)  # the read does not say to which node
        case ReadContributions(number=number):
            return ("collective", at.iteration, at.alias, number)
        case ReadLock(name=name):
            return ("lock", name)
        case ReadPeers() | ReadCheckpoint():
            return ("checkpoint",)
        case _:
            assert_never(read)


def answer(machine: SwarmMachine, read: ExchangeRead) -> Exchanged | PeerInstances | Checkpoint:
    """Raises Refused."""
    at = read.instance
    if at not in machine.data.live:
        sentence = f"{at} was ended: it waits for nothing any more."
        if isinstance(read, ReadPeers | ReadCheckpoint):
            raise Refused(Code.WRONG_STATE, sentence)
        return _never("SwarmStopped", sentence)
    match read:
        case ReadPeers():
            return PeerInstances(_peers(machine, at))
        case ReadCheckpoint():
            key = Sender(at.iteration, at.alias, at.index)
            return Checkpoint(machine.data.exchange.checkpoints.get(key))
        case ReadBroadcast():
            return _broadcast(machine, read)
        case ReadMessage():
            return _message(machine, read)
        case ReadContributions():
            return _contributions(machine, read)
        case ReadLock():
            return _lock(machine, read)
        case _:
            assert_never(read)


def check_peer(machine: SwarmMachine, at: Instance, node_id: str, alias: str) -> None:
    """May the instance talk to that node? Raises Refused."""
    network = machine.graph.tasks[at.alias].network
    if network is None or at not in machine.data.live:
        return
    allowed = networks.may_hear(machine.data, at.alias, at.index, at.iteration)
    if node_id not in allowed:
        spec = machine.graph.networks[network]
        raise Refused(
            Code.NOT_A_NEIGHBOR,
            f"{_label(machine, at)} may not talk to {alias}: in the network {network!r} "
            f"({spec.topology}) they are no neighbors.",
        )


def check_next(machine: SwarmMachine, alias: str | None) -> None:
    """May the next iteration begin with that task? Raises Refused."""
    if alias is not None and alias not in machine.graph.tasks:
        raise Refused(
            Code.UNKNOWN_TASK,
            f"schedule_next_iter was called for {alias!r}, which is no task of this swarm; name "
            f"one of {listed(sorted(machine.graph.tasks))}.",
        )


def _never(error: str, sentence: str) -> Exchanged:
    return Exchanged(False, error=error, sentence=sentence)


def _given(value: Payload | None, rank: int = -1) -> Exchanged:
    return Exchanged(True, (Contribution(rank, value),))


# Broadcasts and messages.


def _broadcast(machine: SwarmMachine, read: ReadBroadcast) -> Exchanged:
    data, at = machine.data, read.instance
    latest = data.exchange.broadcasts.get((at.iteration, read.tag), {})
    if latest:
        network = machine.graph.tasks[at.alias].network
        allowed = networks.may_hear(data, at.alias, at.index, at.iteration)
        for sender, said in reversed(latest.items()):
            same = machine.graph.tasks[sender.alias].network == network
            if same and (network is None or said.node_id in allowed):
                return _given(said.value, sender.rank)
    others = list(_may_still_speak(machine, at))
    if not others:
        return _never(
            "NothingSent",
            f"Nobody has broadcast {read.tag!r} in iteration {at.iteration}, and nobody is left "
            "who could: look at the tag, and at who runs at the same time.",
        )
    return Exchanged(
        False, sentence=f"nobody has broadcast {read.tag!r} yet; {_listed(others)} still may"
    )


def _message(machine: SwarmMachine, read: ReadMessage) -> Exchanged:
    data, at = machine.data, read.instance
    node_id = data.live[at].node_id
    route = Route(read.source, node_id, read.tag)
    channel = data.exchange.channels.get(route)
    mine = [claim for claim in channel.claims if claim.instance == at] if channel else []
    if read.number < len(mine) and (letter := mine[read.number].letter) is not None:
        return _given(letter.value)
    others = list(_may_still_speak(machine, at, read.source))
    if not others:
        return _never(
            "PeerLost",
            f"No message {read.tag!r} has come from {read.source}, and nothing is left there "
            "that could send one.",
        )
    return Exchanged(
        False, sentence=f"no message {read.tag!r} has come from {read.source}: {_listed(others)}"
    )


def _may_still_speak(
    machine: SwarmMachine, at: Instance, node_id: str | None = None
) -> Iterator[str]:
    """Who may say something in this iteration, apart from the reader and what follows it."""
    data = machine.data
    if at.iteration != data.iteration:
        return
    after = _downstream(machine, at.alias)
    for alias, run in data.runs[at.iteration].items():
        if run.phase is Phase.PLACING or (run.phase is Phase.WAITING and alias not in after):
            yield f"{alias} (not placed yet)"
        elif run.phase is Phase.RUNNING:
            if run.has_queued and (alias != at.alias or not run.sequential):
                yield f"{alias} (whose turn has not come)"
            for instance in run.instances:
                last = instance.last
                is_other = last.instance != at and not instance.given_up
                may = last.instance in data.live or last.state is not AttemptState.FINISHED
                if is_other and may and node_id in (None, last.node_id):
                    yield f"{_label(machine, last.instance)} on {last.node_alias}"


def _downstream(machine: SwarmMachine, alias: str) -> set[str]:
    after = machine.graph.layout(machine.data.iteration).after
    found: set[str] = set()
    todo = [alias]
    while todo:
        for child in after[todo.pop()]:
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


# Collectives.


def _contributions(machine: SwarmMachine, read: ReadContributions) -> Exchanged:
    data, at = machine.data, read.instance
    run = data.runs[at.iteration][at.alias]
    key = (at.iteration, at.alias, read.number)
    collective = data.exchange.collectives.get(key) or Collective()
    if problem := _cannot_meet(machine, at, run):
        return _never("CollectiveError", problem)
    for rank, kind in collective.kinds.items():
        if kind != read.kind:
            return _never(
                "CollectiveError",
                f"{_label(machine, at)} called {read.kind} where {at.alias}.{rank} called {kind}: "
                f"all instances of {at.alias!r} must make the same calls in the same order.",
            )
    wanted = read.ranks or tuple(range(run.size))
    there = [rank for rank in wanted if _part_for(collective, rank, at.index) is not None]
    enough = len(wanted) if read.enough is None else min(read.enough, len(wanted))
    if len(there) >= enough or read.partial:
        return _page(collective, at, there, read.after, _lost_ranks(run, wanted, there))
    lost = _lost_ranks(run, wanted, there)
    if read.on_loss == "continue" and lost and len(there) + len(lost) == len(wanted):
        return _page(collective, at, there, read.after, lost)
    if lost and (read.on_loss == "raise" and len(wanted) - len(lost) < enough):
        named = _listed(_standing(machine, run, rank) for rank in lost)
        return _never("PeerLost", f"{read.kind} waits for {named} in vain.")
    missing = (rank for rank in wanted if rank not in there)
    named = _listed(_standing(machine, run, rank) for rank in missing)
    return Exchanged(False, sentence=f"{read.kind} waits for {named}")


def _part_for(collective: Collective, rank: int, reader: int) -> tuple[int, int | None] | None:
    """Where a rank's part for the reader is: one for it alone, or one for all."""
    keys: tuple[tuple[int, int | None], ...] = ((rank, reader), (rank, None))
    return next((key for key in keys if key in collective.parts), None)


def _cannot_meet(machine: SwarmMachine, at: Instance, run: TaskRun) -> str:
    if run.sequential and run.size > 1:
        return (
            f"The instances of {at.alias!r} run one after another (sequential), so they cannot "
            "meet in a collective: schedule it as parallel."
        )
    if run.nodes:
        return (
            f"The {run.size} instances of {at.alias!r} are more than run at the same time, so they "
            "cannot meet in a collective: give it fewer replicas."
        )
    network = run.spec.network
    if network is None:
        return ""
    all_ = networks.members(machine.data, network, at.iteration)
    mine = [member for member in all_ if member.alias == at.alias]
    if networks.is_connected(machine.graph.networks[network], all_, mine):
        return ""
    return (
        f"The edges of the network {network!r} do not join all instances of {at.alias!r}, so they "
        "cannot meet in a collective: add edges."
    )


def _lost_ranks(run: TaskRun, wanted: Iterable[int], there: Iterable[int]) -> list[int]:
    """Who will never answer."""
    answered = set(there)
    lost = []
    for rank in wanted:
        if rank in answered or rank >= len(run.instances):
            continue
        instance = run.instances[rank]
        if instance.given_up or instance.last.state is AttemptState.FINISHED:
            lost.append(rank)
    return lost


def _page(
    collective: Collective, at: Instance, ranks: list[int], after: int, lost: list[int]
) -> Exchanged:
    """As many as fit into a message."""
    found: list[Contribution] = []
    size = 0
    for rank in ranks[after:]:
        key = _part_for(collective, rank, at.index)
        value = collective.parts[key] if key is not None else None
        size += 100 + (len(value.data) if isinstance(value, Inline) else 0)
        if found and size > PAGE_BYTES:
            return Exchanged(True, tuple(found), more=True, missing=tuple(lost))
        found.append(Contribution(rank, value))
    return Exchanged(True, tuple(found), missing=tuple(lost))


# Locks and peers.


def _lock(machine: SwarmMachine, read: ReadLock) -> Exchanged:
    queue = machine.data.exchange.locks.get(read.name, [])
    if read.instance not in queue:
        return _never("NothingSent", f"The lock {read.name!r} was not asked for.")
    if queue[0] == read.instance:
        return _given(None)
    holder = machine.data.live.get(queue[0])
    where = f" on {holder.node_alias}" if holder else ""
    return Exchanged(
        False,
        sentence=f"the lock {read.name!r} is held by {_label(machine, queue[0])}{where}",
    )


def _peers(machine: SwarmMachine, at: Instance) -> tuple[PeerInstance, ...]:
    run = machine.data.runs[at.iteration][at.alias]
    if run.nodes:
        return tuple(
            PeerInstance(rank, one.last.node_id, one.last.node_alias, run.shares[rank])
            for rank, one in enumerate(run.instances)
            if one.is_open or rank == at.index
        )
    nodes = [(one.last.node_id, one.last.node_alias) for one in run.instances]
    nodes += [(placement.node_id, placement.node_alias) for placement in run.queued]
    return tuple(
        PeerInstance(rank, node_id, alias, share)
        for (rank, (node_id, alias)), share in zip(enumerate(nodes), run.shares, strict=True)
    )


# Sentences.


def _label(machine: SwarmMachine, instance: Instance) -> str:
    size = machine.data.runs[instance.iteration][instance.alias].size
    return instance.alias if size == 1 else f"{instance.alias}.{instance.index}"


def _standing(machine: SwarmMachine, run: TaskRun, rank: int) -> str:
    name = f"{run.spec.alias}.{rank}"
    if rank >= len(run.instances):
        return f"{name} (not placed yet)"
    instance = run.instances[rank]
    if instance.given_up:
        return f"{name} ({instance.given_up})"
    if instance.last.state is AttemptState.FINISHED:
        return f"{name} on {instance.last.node_alias} (it has finished without that call)"
    return f"{name} on {instance.last.node_alias} ({instance.last.state.lower()})"


def _listed(names: Iterable[str]) -> str:
    all_ = list(names)
    more = f" and {len(all_) - SHOWN} more" if len(all_) > SHOWN else ""
    return ", ".join(all_[:SHOWN]) + more
