"""What must hold after each step, and of the whole history at its end."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from manta.manager.swarm import letters
from manta.manager.swarm.events import EntriesReceived
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads.queries import page
from manta.protocol.node import Assignment, GlobalWritten, Instance, TaskStarted
from manta.protocol.states import AttemptState, SwarmState
from manta.protocol.values import BlobRef
from tests.simulation.programs import read


def counted(machine: SwarmMachine) -> int:
    """How often instances added one, each under a lock."""
    value, _ = machine.global_value("counter")
    return read(value) if value is not None else 0


class Checker:
    """Watches all machines from outside, and keeps its own books."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.ledger: dict = defaultdict(dict)
        """What nodes have durably written: (node, swarm) -> number -> entry."""
        self.acked: dict[tuple[str, str], int] = defaultdict(int)
        self.started: set[Instance] = set()
        self.finals: dict[str, tuple[SwarmState, str]] = {}
        self.last_writes: dict[str, Any] = {}
        self.lost_nodes: set[str] = set()
        self.counts: dict[str, int] = defaultdict(int)
        self.deleted: dict[str, set[int]] = defaultdict(set)
        """By swarm: positions of results that a user was told are deleted."""
        self._seen: dict[str, tuple[int, int]] = {}
        self._logged: dict[str, int] = defaultdict(int)
        self.given: set[tuple[str, str]] = set()
        """Nodes and swarms of which each was ever given an attempt."""
        self._unread: dict[tuple[str, str], int] = defaultdict(int)
        self._returned: dict[tuple[str, str], int] = defaultdict(int)

    # What nodes do.

    def wrote(self, node: Any, swarm_id: str, number: int, entry: Any) -> None:
        kept = self.ledger[node.id, swarm_id].setdefault(number, entry)
        assert kept == entry, f"{node.alias} wrote number {number} twice: {kept} and {entry}"
        if isinstance(entry, TaskStarted):
            self.started.add(entry.instance)

    def runs(self, node: Any, assignment: Assignment) -> None:
        instance = assignment.instance
        assert assignment.node_id == node.id
        assert instance not in self.started, f"{node.alias} runs {instance} a second time"

    def acknowledged(self, node: Any, swarm_id: str, upto: int) -> None:
        self.acked[node.id, swarm_id] = max(upto, self.acked[node.id, swarm_id])

    # What the manager does.

    def before(self, machine: SwarmMachine, event: Any) -> Any:
        if not isinstance(event, EntriesReceived):
            return None
        live = set(machine.data.live)
        last = machine.global_value("last")[1]
        return machine.applied(event.node_id), live, last, counted(machine)

    def after(self, machine: SwarmMachine, event: Any, seen: Any) -> None:
        if seen is None:
            return
        applied, live, version, count = seen
        now = machine.applied(event.node_id)
        ledger = self.ledger[event.node_id, machine.data.swarm_id]
        fresh = []
        for number in range(applied + 1, now + 1):
            entry = event.entries[number - event.first]
            assert ledger.get(number) == entry, f"number {number} is not what the node wrote"
            fresh.append(entry)
        self.counts["repeats"] += len(event.entries) - len(fresh)
        mine = [entry for entry in fresh if isinstance(entry, GlobalWritten)]
        self.counts["superseded"] += sum(entry.instance not in live for entry in mine)
        writes = [e for e in mine if e.tag == "last" and e.instance in live]
        for entry in mine:
            if entry.tag == "counter" and entry.instance in live and not machine.state.final:
                self.counts["counted"] += 1
                count += 1
                assert read(entry.value) == count, "two held a lock at once"
        value, new_version = machine.global_value("last")
        if not machine.state.final:  # else it may have ended between two of them
            assert new_version == version + len(writes), "a global was written more or less often"
            assert not writes or value == writes[-1].value, "the last writer did not win"

    def deletes(self, machine: SwarmMachine, tag: str | None, iteration: int | None) -> None:
        found = machine.data.results_of(tag, iteration)
        self.deleted[machine.data.swarm_id].update(found)
        self.counts["deleted"] += len(found)

    def lost(self, node_id: str) -> None:
        self.lost_nodes.add(node_id)
        self.counts["lost"] += 1

    def isolated(self) -> None:
        self.counts["isolated"] += 1

    def ended(self, swarm_id: str, state: SwarmState, reason: str) -> None:
        """It is durable, and may have been told."""
        kept = self.finals.setdefault(swarm_id, (state, reason))
        assert kept == (state, reason), f"{swarm_id} was {kept} and is {state}, {reason}"

    def gave(self, node_id: str, swarm_id: str) -> None:
        self.given.add((node_id, swarm_id))

    # After each step.

    def check(self) -> None:
        manager = self.manager
        if manager is None or not manager.alive:
            return
        for swarm_id, machine in manager.machines.items():
            seen = (id(machine), machine.revision)
            if self._seen.get(swarm_id) == seen:
                continue
            self._seen[swarm_id] = seen
            self._check(manager, swarm_id, machine)

    def _check(self, manager: Any, swarm_id: str, machine: SwarmMachine) -> None:
        data = machine.data
        for node_id in manager.disk.nodes:
            acked = self.acked[node_id, swarm_id]
            assert machine.applied(node_id) >= acked, f"acknowledged entries of {node_id} are lost"
        if swarm_id in self.finals:
            assert (data.state, data.reason) == self.finals[swarm_id], "a final state flipped"
        assert not (data.state.final and machine.desired())
        self._check_letters(manager, swarm_id, data.exchange.post)
        keys = [(i.iteration, i.tag, i.alias, i.index, i.attempt) for i in data.results]
        assert len(set(keys)) == len(keys), "a result was applied twice"
        gone = self.deleted[swarm_id]
        assert gone <= data.deleted, "what was deleted is there again"
        shown = page(machine, "results", 0, 10**6).items
        assert len(shown) == len(data.results) - len(data.deleted)
        for tag, kept in data.globals.items():
            assert not tag.startswith("once/") or kept.version == 1, f"{tag} was applied twice"
        for iteration, runs in enumerate(data.runs):
            for alias, run in runs.items():
                answered = [i.last.state is AttemptState.FINISHED for i in run.instances]
                assert run.finished == sum(answered), f"{alias} counts an instance twice"
                assert (run.phase == "DONE") or iteration == data.iteration

    def _check_letters(self, manager: Any, swarm_id: str, post: letters.Post) -> None:
        """Beyond what is sent, only what attempts that failed had received becomes unread."""
        logged, self._logged[swarm_id] = self._logged[swarm_id], post.logged
        sent = max(0, post.logged - logged) // letters.ENVELOPE
        for node_id, box in post.boxes.items():
            key, unread = (swarm_id, node_id), box.all.letters
            self._returned[key] += max(0, unread - self._unread[key] - sent)
            self._unread[key] = unread
            self.counts["full boxes"] += unread >= letters.UNREAD.letters
            most = letters.UNREAD.letters + len(manager.disk.nodes) * letters.SHARE.letters
            assert unread <= most + self._returned[key], f"{node_id} has {unread} unread letters"

    def knows(self, node: Any) -> None:
        """A node knows only of nodes that were given attempts of a swarm, as it was itself."""
        for key in node.known.keys:
            for swarm_id in node.known.swarms:
                if node.known.peer(swarm_id, key) is not None:
                    for who in (node.id, node.world.names[key]):
                        assert (who, swarm_id) in self.given, f"{node.alias} knows of {who}"

    def check_agreement(self, nodes: list, before: dict[str, dict[str, int]]) -> None:
        """Where nothing has changed for some seconds, nodes know what the manager shows."""
        peers = self.manager.peers
        for node in nodes:
            now = peers.versions(node.id)
            for swarm_id in now.keys() | before[node.id].keys():
                version = now.get(swarm_id)
                if version != before[node.id].get(swarm_id):
                    continue
                shown: dict[str, Any] = {}
                page = peers.page(node.id, swarm_id, 0, "")
                while page is not None:
                    shown |= {peer.node_id: peer for peer in page.peers}
                    last = max(shown, default="")
                    page = peers.page(node.id, swarm_id, version, last) if page.more else None
                found = {id_: node.known.node(swarm_id, id_) for id_ in shown}
                assert found == shown, f"{node.alias} knows {found}, and shown are {shown}"
                self.counts["agreed"] += len(shown) > 1

    # At the end.

    def check_end(self, world: Any, nodes: list) -> None:
        manager = self.manager
        for node in nodes:
            assert not node.attempts, f"{node.alias} still runs {node.attempts}"
            assert node.observed.held == (), f"{node.alias} still holds {node.observed.held}"
            assert node.reservations.running == node.reservations.queued == 0
            assert node.observed.version == manager.desired.version(node.id)
            assert node.observed.swarms == frozenset()
            assert node.known.keys == node.known.swarms == ()
            for swarm_id, journal in node.journals.items():
                assert len(journal.entries) == 0, f"{node.alias} keeps entries of {swarm_id}"
            assert not manager.desired.full(node.id).assignments
        for swarm_id, machine in manager.machines.items():
            replayed = SwarmMachine.replay(swarm_id, "c", manager.disk.records(swarm_id))
            assert replayed.data == machine.data, "a replay gives another state"
            for node in nodes:
                ledger = self.ledger[node.id, swarm_id]
                assert machine.applied(node.id) == max(ledger, default=0), "an entry was lost"
            self._check_promises(machine, nodes)
        values = (kept.value for m in manager.machines.values() for kept in m.data.globals.values())
        blobs = {value.digest for value in values if isinstance(value, BlobRef)}
        self.counts["blobs"] += len(blobs)
        assert manager.disk.referred() == blobs, "blobs are kept that nobody needs, or not kept"

    def _check_promises(self, machine: SwarmMachine, nodes: list) -> None:
        broken = {instance: what for node in nodes for instance, what in node.broken.items()}
        for runs in machine.data.runs:
            for run in runs.values():
                for instance in run.instances:
                    if instance.last.state is AttemptState.FINISHED:
                        assert instance.last.instance not in broken, (
                            f"{instance.last.instance}: {broken[instance.last.instance]}"
                        )
