"""Who may talk to whom: the networks of a swarm. Pure.

A network's members in an iteration are the instances of its tasks that are placed, ordered
by task and rank. `full` joins all of them; `ring` each to the next, the last to the first;
`star` all to the first; `edges` those on the nodes that are named in pairs. Instances of one
node may always talk. A task without a network talks to those that have none either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from manta.manager.swarm.state import SwarmData
from manta.protocol.spec import NetworkSpec


class Member(NamedTuple):
    alias: str
    rank: int
    node_id: str
    node_alias: str


def members(data: SwarmData, network: str | None, iteration: int) -> list[Member]:
    """Placed instances of the network's tasks; of those without one, for None."""
    return [
        Member(alias, rank, instance.last.node_id, instance.last.node_alias)
        for alias, run in data.runs[iteration].items()
        if data.graph.tasks[alias].network == network
        for rank, instance in enumerate(run.instances)
    ]


def neighbors(spec: NetworkSpec, of: Member, all_: Sequence[Member]) -> set[str]:
    """Ids of the nodes whose instances this one may talk to, its own among them."""
    found = {of.node_id}
    place = all_.index(of)
    if spec.topology == "full":
        found.update(member.node_id for member in all_)
    elif spec.topology == "ring":
        found |= {all_[place - 1].node_id, all_[(place + 1) % len(all_)].node_id}
    elif spec.topology == "star":
        found.update(member.node_id for member in (all_ if place == 0 else all_[:1]))
    else:
        mine = {of.node_id, of.node_alias}
        for one, other in spec.edges:
            for here, there in ((one, other), (other, one)):
                if here in mine:
                    found.update(
                        member.node_id
                        for member in all_
                        if there in (member.node_id, member.node_alias)
                    )
    return found


def may_hear(data: SwarmData, alias: str, rank: int, iteration: int) -> set[str]:
    """Ids of the nodes that an instance may talk to."""
    network = data.graph.tasks[alias].network
    all_ = members(data, network, iteration)
    if network is None:
        return {member.node_id for member in all_}
    of = next(member for member in all_ if (member.alias, member.rank) == (alias, rank))
    return neighbors(data.graph.networks[network], of, all_)


def is_connected(spec: NetworkSpec, all_: Sequence[Member], wanted: Sequence[Member]) -> bool:
    """Does a way lead from each of `wanted` to each other?"""
    if not wanted or spec.topology != "edges":
        return True
    reached, todo = {wanted[0].node_id}, [wanted[0].node_id]
    while todo:
        node_id = todo.pop()
        for member in all_:
            if member.node_id == node_id:
                new = neighbors(spec, member, all_) - reached
                reached |= new
                todo += new
    return all(member.node_id in reached for member in wanted)
