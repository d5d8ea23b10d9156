"""A swarm's roster as its exchange looks at it. Pure.

A roster comes up to twenty times a second, with all instances, and is asked about with each letter:
what takes a walk over all of them is found out once, when it is first asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from manta.node.peers.known import KnownPeers
from manta.protocol.base import Instance
from manta.protocol.roster import Roster, RosterInstance, RosterTask
from manta.protocol.spec import NetworkSpec
from manta.protocol.states import AttemptState
from manta.roster import waits
from manta.roster.networks import neighbors
from manta.transports.exchange.channels import Member
from manta.transports.exchange.letters import Attempt
from manta.transports.exchange.waits import Outlook

_Placed = tuple[RosterTask, RosterInstance]


class _Network:
    """Whose broadcasts are heard on which nodes. States of its members make no difference."""

    def __init__(self, spec: NetworkSpec, tasks: Sequence[RosterTask]) -> None:
        self._spec = spec
        self._tasks = {task.alias: task for task in tasks}
        self._members = [one for task in tasks for one in task.instances]
        self._heard_on: dict[Member, set[str]] = {}

    def is_like(self, other: _Network) -> bool:
        """Whether all members are on the same nodes there."""
        sizes, others = ([len(t.instances) for t in one._tasks.values()] for one in (self, other))
        return (
            self._spec == other._spec
            and list(self._tasks) == list(other._tasks)
            and sizes == others
            and all(
                one is two or (one.node_id, one.node_alias) == (two.node_id, two.node_alias)
                for one, two in zip(self._members, other._members, strict=True)
            )
        )

    def heard_on(self, sender: Member) -> set[str]:
        found = self._heard_on.get(sender)
        if found is None:
            placed = self._tasks[sender.task].instances
            found = set()
            if sender.rank < len(placed):
                found = neighbors(self._spec, placed[sender.rank], self._members)
            self._heard_on[sender] = found
        return found


class RosterView:
    """Implements `exchange.group.Roster` for the node with the id `me`. `former` is the view of the
    roster before, of which what still holds is taken over."""

    def __init__(
        self,
        swarm_id: str,
        me: str,
        roster: Roster,
        known: KnownPeers,
        former: RosterView | None = None,
    ) -> None:
        self.era = roster.iteration
        self.is_final = roster.is_final
        self._swarm_id = swarm_id
        self._me = me
        self._roster = roster
        self._known = known
        self._networks: dict[str, _Network] = {}
        """Those that were asked about."""
        self._before: dict[str, _Network] = {}
        if former is not None:
            self._before = {**former._before, **former._networks}

    def peers(self) -> Iterable[str]:
        return [id_ for id_ in self._known.nodes(self._swarm_id) if id_ != self._me]

    def name(self, peer: str) -> str:
        found = self._known.node(self._swarm_id, peer) or self._known.departed(self._swarm_id, peer)
        return found.alias if found is not None else peer

    def knows(self, at: Attempt) -> bool:
        """Whether it says to whom the attempt may talk. Of a task without a network each roster
        that has the task does."""
        if at.era < self.era:
            return True
        task = self._roster.tasks.get(at.member.task)
        if task is None:
            return False
        return task.network is None or (at.era == self.era and at.member.rank < len(task.instances))

    def is_past(self, at: Attempt) -> bool:
        """Whether the attempt has ended, or is not the last of its instance any more."""
        if at.era != self.era or self.counted(at) is None:
            return at.era < self.era
        return True

    def refusal(self, sender: Attempt, peer: str) -> str:
        task = self._roster.tasks.get(sender.member.task)
        if task is None or task.network is None or sender.member.rank >= len(task.instances):
            return ""
        on = self._heard_on(sender.member)
        if on is None or peer in on:
            return ""
        spec = self._roster.networks[task.network]
        return (
            f"{sender.member} may not talk to {self.name(peer)}: in the network {task.network!r} "
            f"({spec.topology}) they are not neighbors."
        )

    def hears(self, task: str, peer: str, sender: Member) -> bool:
        listener, speaker = self._roster.tasks.get(task), self._roster.tasks.get(sender.task)
        if listener is None or speaker is None or listener.network != speaker.network:
            return False
        on = self._heard_on(sender)
        return on is None or peer in on

    def is_there(self, member: Member, peer: str) -> bool:
        task = self._roster.tasks.get(member.task)
        if task is None or member.rank >= len(task.instances):
            return False
        return task.instances[member.rank].node_id == peer

    def _heard_on(self, sender: Member) -> set[str] | None:
        """None for all."""
        name = self._roster.tasks[sender.task].network
        if name is None:
            return None
        network = self._networks.get(name)
        if network is None:
            tasks = [task for task in self._roster.tasks.values() if task.network == name]
            network, before = _Network(self._roster.networks[name], tasks), self._before.get(name)
            if before is not None and before.is_like(network):
                network = before
            self._networks[name] = network
        return network.heard_on(sender)

    def may_send(self, reader: Attempt, peer: str | None) -> bool:
        if reader.era > self.era:  # it was not told of that one yet
            return True
        there = self._all if peer is None else self._on.get(peer, ())
        return waits.may_still_send(self._roster, self._instance(reader), there)

    @property
    def _all(self) -> Iterable[_Placed]:
        return ((task, one) for task in self._roster.tasks.values() for one in task.instances)

    @cached_property
    def _on(self) -> dict[str, Sequence[_Placed]]:
        """The instances on each node."""
        found: dict[str, list[_Placed]] = {}
        for task, one in self._all:
            found.setdefault(one.node_id, []).append((task, one))
        return {node_id: tuple(there) for node_id, there in found.items()}

    def of_letter(self, reader: Attempt, peer: str, tag: str) -> Outlook:
        if reader.era > self.era:
            return self._untold(reader)
        return Outlook(*waits.letter(self._roster, self._instance(reader), peer, tag))

    def of_broadcast(self, reader: Attempt, tag: str) -> Outlook:
        if reader.era > self.era:
            return self._untold(reader)
        return Outlook(*waits.broadcast(self._roster, self._instance(reader), tag))

    def counted(self, at: Attempt) -> bool | None:
        if at.era == self.era - 1:
            counted = self._roster.former.get(at.member.task, {}).get(at.member.rank, 0)
            return counted == at.number
        if at.era != self.era:  # of letters to one that was away for longer nobody keeps any
            return True if at.era < self.era else None
        task = self._roster.tasks.get(at.member.task)
        if task is None or at.member.rank >= len(task.instances):
            return None
        last = task.instances[at.member.rank]
        if last.attempt != at.number:
            return False if last.attempt > at.number else None
        state = AttemptState(last.state)
        return state is AttemptState.FINISHED if state.final else None

    def _untold(self, reader: Attempt) -> Outlook:
        return Outlook("", f"the node was not told yet who takes part in iteration {reader.era}")

    def is_lost(self, peer: str) -> bool:
        return self._known.node(self._swarm_id, peer) is None

    def _instance(self, at: Attempt) -> Instance:
        return Instance(self._swarm_id, at.member.task, at.member.rank, at.era, at.number)
