"""What a node is told of a swarm: what the attempts that it runs may read, and nothing else.

To a node that runs nothing of it, the swarm is as one that is not there.
"""

from __future__ import annotations

from typing import assert_never

from manta.actors.errors import Refused
from manta.manager.directory import not_run
from manta.manager.messages import FromNode
from manta.manager.swarm.letters import Most
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads import exchange, queries
from manta.manager.swarm.reads.meetings import Nodes
from manta.protocol.codes import Code
from manta.protocol.exchange import (
    CheckNext,
    Checkpoint,
    Exchanged,
    ExchangeRead,
    PeerInstances,
    ResolvedPeer,
    ResolvePeer,
)
from manta.protocol.node import (
    GlobalValue,
    ListGlobals,
    Ok,
    ReadGlobal,
    ResultEntries,
    SelectResults,
    Tags,
)

NodeRead = ReadGlobal | ListGlobals | SelectResults | ResolvePeer | CheckNext


def answer(
    machine: SwarmMachine, read: NodeRead, request: FromNode, most: Most
) -> GlobalValue | Tags | ResultEntries | ResolvedPeer | Ok:
    """`most`: the letters that the swarm may have. Raises Refused."""
    check_runs(machine, request.node_id)
    if isinstance(read, ResolvePeer | CheckNext) and not _is_of(machine, read, request.node_id):
        raise Refused(Code.WRONG_STATE, exchange.ended(read))
    if isinstance(request.found, Refused):
        raise request.found
    match read:
        case ReadGlobal(tag=tag):
            return GlobalValue(*machine.global_value(tag))
        case ListGlobals():
            return Tags(machine.global_tags())
        case SelectResults(tag=tag, iteration=iteration, after=after):
            return queries.select_results(machine, tag, iteration, after)
        case CheckNext(alias=alias):
            exchange.check_next(machine, alias)
            return Ok()
        case ResolvePeer():
            peer = request.found
            assert peer is not None
            exchange.check_peer(machine, read.instance, peer.node_id, peer.alias)
            room = exchange.room(machine.data, read.instance, peer.node_id, most)
            return ResolvedPeer(peer.node_id, peer.alias, room.letters, room.size)
        case _:
            assert_never(read)


def exchanged(
    machine: SwarmMachine, read: ExchangeRead, node_id: str, most: Most, nodes: Nodes
) -> Exchanged | PeerInstances | Checkpoint:
    """What the waiting task is told as things stand. Raises Refused."""
    check_runs(machine, node_id)
    if not _is_of(machine, read, node_id):
        return exchange.nothing_for(read)
    return exchange.answer(machine, read, most, nodes)


def check_runs(machine: SwarmMachine, node_id: str) -> None:
    """Raises Refused unless the node runs an attempt of the swarm."""
    if node_id not in machine.data.held:
        raise not_run(machine.data.swarm_id)


def _is_of(
    machine: SwarmMachine, read: ExchangeRead | ResolvePeer | CheckNext, node_id: str
) -> bool:
    """Whether the node runs the attempt that asks."""
    attempt = machine.data.live.get(read.instance)
    return attempt is not None and attempt.node_id == node_id
