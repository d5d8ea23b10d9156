"""Who may talk to whom, by a swarm's state; `manta.roster.networks` has the rules."""

from __future__ import annotations

from manta.manager.swarm.state import Attempt, SwarmData
from manta.protocol.base import Instance
from manta.roster.networks import neighbors


def may_hear(data: SwarmData, at: Instance) -> set[str]:
    """Ids of the nodes that a live attempt may talk to."""
    network = data.graph.tasks[at.alias].network
    all_ = _members(data, network, at.iteration)
    if network is None:
        return {member.node_id for member in all_}
    return neighbors(data.graph.networks[network], data.live[at], all_)


def _members(data: SwarmData, network: str | None, iteration: int) -> list[Attempt]:
    return [
        instance.last
        for alias, run in data.runs[iteration].items()
        if data.graph.tasks[alias].network == network
        for instance in run.instances
    ]
