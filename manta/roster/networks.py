"""Who may talk to whom: the networks of a swarm.

The members of a network in an iteration are the instances of its tasks that are placed,
ordered by task and rank, which gives their ranks in the network's topology (`topologies.py`);
`edges` joins those on the nodes that are named in pairs. Instances on one node may always talk,
and so may all tasks without a network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.roster.topologies import Topology


class Member(Protocol):
    """An instance that is placed."""

    @property
    def node_id(self) -> str: ...

    @property
    def node_alias(self) -> str: ...


M = TypeVar("M", bound=Member)


def members(roster: Roster, network: str | None) -> list[RosterInstance]:
    """The network's members; with None, the instances of the tasks without a network."""
    return [
        instance
        for task in roster.tasks.values()
        if task.network == network
        for instance in task.instances
    ]


def neighbors(spec: NetworkSpec, of: M, all_: Sequence[M]) -> set[str]:
    """Ids of the nodes whose instances this member may talk to, including its own."""
    if spec.topology == "edges":
        mine = (of.node_id, of.node_alias)
        theirs = {there for a, b in spec.edges for here, there in ((a, b), (b, a)) if here in mine}
        found = {one.node_id for one in all_ if theirs & {one.node_id, one.node_alias}}
    else:
        rank = next(rank for rank, member in enumerate(all_) if member is of)
        ranks = Topology.of(spec.topology).neighbors(rank, len(all_))
        found = {all_[other].node_id for other in ranks}
    return found | {of.node_id}


def is_connected(spec: NetworkSpec, all_: Sequence[M], wanted: Sequence[M]) -> bool:
    """Whether a path leads from each of `wanted` to each other."""
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


def meet(roster: Roster, task: RosterTask) -> bool:
    """Whether its network joins all instances of the task that are placed."""
    if task.network is None:
        return True
    all_ = members(roster, task.network)
    return is_connected(roster.networks[task.network], all_, task.instances)
