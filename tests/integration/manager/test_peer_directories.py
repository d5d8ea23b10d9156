"""Which nodes a real manager tells of which other nodes, whatever happens to it and to them."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from manta.actors import ActorError, Refused
from manta.manager.backup import backup, restore
from manta.manager.directory import not_run
from manta.manager.home import Home, RestoredFile
from manta.node.peers.rosters import Rosters
from manta.protocol.clusters import CreateCluster, CreateNodeToken, RemoveNode
from manta.protocol.codes import Code
from manta.protocol.exchange import Contributed, ReadBroadcast, ReadContributions, ReadMessage
from manta.protocol.node import (
    Assignment,
    Capabilities,
    Heartbeat,
    JournalEntry,
    Load,
    Register,
    TaskEnded,
    TaskError,
    TaskStarted,
)
from manta.protocol.peers import Departed, FetchPeers, Peer, PeersChanged
from manta.protocol.roster import Roster, RosterTold, WantRoster
from manta.protocol.sign_in import SignIn
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    CheckSwarm,
    GetSwarm,
    SendSwarm,
    StartSwarm,
    StopSwarm,
)
from manta.protocol.users import AddUser
from manta.roster import waits
from manta.roster.differences import apply
from manta.roster.waits import Outlook
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.transports.security.keys import KeyPair
from tests.integration.manager.test_process import ANYWHERE, Process

MODULE = ModuleSpec("m", image="none")


def at(number: int) -> str:
    return f"tcp://127.0.0.1:{7000 + number}"


def silent(assignment: Assignment) -> list[JournalEntry]:
    return [TaskStarted(assignment.instance, 0.0)]


@pytest.fixture
def peers(bench) -> Callable[..., list[FakeNode]]:
    """Nodes that are told of others."""

    def start(count: int, script=silent, **options) -> list[FakeNode]:
        started = [
            bench.node(number, script, **{"peer_addresses": (at(number),), **options})
            for number in range(1, count + 1)
        ]
        for node in started:
            assert node.registered.wait(60)
        return started

    return start


def deploy(client: Client, *nodes: FakeNode, cluster: str = "lab", **task) -> str:
    """A swarm of one task, on these nodes."""
    if nodes:
        task["specified_ids"] = tuple(node.node_id for node in nodes)
    spec = SwarmSpec("s", (TaskSpec("task", "m", **task),), (MODULE,))
    swarm: str = client.ask(SendSwarm(cluster, spec)).swarm_id
    client.ask(StartSwarm(swarm))
    return swarm


def known(node: FakeNode, swarm: str) -> dict[str, Peer]:
    """By alias: whom the node knows of in the swarm."""
    found = [one for one in node.directories.all() if one.swarm_id == swarm]
    return {peer.alias: peer for one in found for peer in one.peers}


def epoch(node: FakeNode, swarm: str) -> str | None:
    return next((one.epoch for one in node.directories.all() if one.swarm_id == swarm), None)


def know(nodes: list[FakeNode], swarm: str, *aliases: str) -> Callable[[], bool]:
    wanted = set(aliases) or {node.alias for node in nodes}
    return lambda: all(set(known(node, swarm)) == wanted for node in nodes)


def is_sure(node: FakeNode, swarm: str) -> bool:
    """Has it heard what the manager that it is connected to knows?"""
    return node.registered.is_set() and not node.directories._held[swarm].in_doubt


def departed(node: FakeNode, swarm: str, of: FakeNode) -> Departed | None:
    return node.directories.departed(swarm, of.node_id)


def test_nodes_of_a_swarm_are_told_of_each_other_and_others_are_not(
    bench, admin: Client, peers
) -> None:
    one, two, three = peers(3)
    swarm = deploy(admin, one, two)
    wait_until(know([one, two], swarm))
    assert known(one, swarm)["node-2"] == Peer(two.node_id, "node-2", two.keys.public, (at(2),))
    assert known(two, swarm)["node-1"].key == one.keys.public
    other = deploy(admin, two, three)
    wait_until(know([two, three], other))
    assert set(known(two, swarm)) == {"node-1", "node-2"}
    # Each knows of its own swarms alone, and gets no other by asking.
    unknown = not_run("it").sentence
    assert known(one, other) == known(three, swarm) == {}
    for node, not_its in ((one, other), (three, swarm), (three, "0" * 16)):
        with pytest.raises(Refused) as refused:
            node.ask(FetchPeers(not_its))
        assert refused.value.sentence.replace(not_its, "it") == unknown


def test_a_node_of_another_cluster_never_learns_of_it(bench, admin: Client, peers) -> None:
    admin.ask(AddUser("eve@elsewhere.org", "correct-horse"))
    eve = bench.client()
    eve.ask(SignIn("eve@elsewhere.org", "correct-horse"))
    eve.ask(CreateCluster("mine"))
    token = eve.ask(CreateNodeToken("mine")).token
    foreign = bench.node(
        4, silent, keys=KeyPair.generate(), alias="foreign", token=token, peer_addresses=(at(4),)
    )
    assert foreign.registered.wait(60)
    own = deploy(eve, cluster="mine")
    one, two = peers(2)
    swarm = deploy(admin, one, two)
    wait_until(know([one, two], swarm))
    wait_until(know([foreign], own))
    heard = [message for message in foreign.heard if isinstance(message, PeersChanged)]
    assert {message.swarm_id for message in heard} == {own}
    assert one.node_id not in str(foreign.heard)
    assert one.keys.public not in str(foreign.heard)


def test_a_retry_on_another_node_is_told(bench, admin: Client, peers) -> None:
    def fails_once(assignment: Assignment) -> list[JournalEntry]:
        instance = assignment.instance
        if instance.attempt:
            return [TaskStarted(instance, 0.0)]
        error = TaskError("ValueError", "no")
        return [TaskStarted(instance, 0.0), TaskEnded(instance, "FAILED", 0.0, error=error)]

    nodes = peers(2, fails_once)
    swarm = deploy(admin, method="any", retries=1)
    wait_until(lambda: all(node.ran for node in nodes))
    wait_until(know(nodes, swarm))


def test_those_that_come_later_are_told_and_told_of(bench, admin: Client, peers) -> None:
    """Tasks that follow each other, on different nodes."""
    one, two = peers(2)
    spec = SwarmSpec(
        "s",
        (
            TaskSpec("first", "m", specified_ids=(one.node_id,)),
            TaskSpec("second", "m", specified_ids=(two.node_id,)),
        ),
        (MODULE,),
    )
    swarm = admin.ask(SendSwarm("lab", spec)).swarm_id
    admin.ask(StartSwarm(swarm))
    wait_until(know([one, two], swarm))


@pytest.mark.parametrize("count", [2, 3])
def test_of_a_node_that_is_removed_the_others_are_told(
    bench, admin: Client, peers, count: int
) -> None:
    nodes = peers(count)
    swarm = deploy(admin, quorum=0.1, deadline=60.0)
    wait_until(know(nodes, swarm))
    gone, *others = nodes
    began = time.monotonic()
    admin.ask(RemoveNode(gone.node_id))
    wait_until(lambda: all(departed(node, swarm, gone) for node in others))
    print(f"told after {(time.monotonic() - began) * 1000:.1f} ms")
    for node in others:
        why = departed(node, swarm, gone)
        assert why is not None
        assert (why.why, why.key) == ("revoked", gone.keys.public)
        assert why.sentence == "it was removed from the cluster"
        assert "node-1" not in known(node, swarm)


def test_of_a_node_that_is_lost_the_others_are_told_and_when_it_is_back(
    bench, admin: Client, peers
) -> None:
    bench.settings = replace(bench.settings, lease=2.0)
    bench.restart()
    nodes = peers(3)
    swarm = deploy(admin, quorum=0.1, deadline=60.0)
    wait_until(know(nodes, swarm))
    one, two, three = nodes
    three.close()
    wait_until(lambda: departed(one, swarm, three) and departed(two, swarm, three))
    why = departed(one, swarm, three)
    assert why is not None
    assert why.why == "lost"
    assert "no sign of life" in why.sentence
    assert set(known(one, swarm)) == {"node-1", "node-2"}
    again = bench.node(3, silent, peer_addresses=(at(9),))
    assert again.registered.wait(60)
    wait_until(know([one, two, again], swarm, "node-1", "node-2", "node-3"))
    assert known(one, swarm)["node-3"].addresses == (at(9),)
    assert departed(one, swarm, three) is None


def test_other_addresses_of_a_node_that_starts_anew_are_told(bench, admin: Client, peers) -> None:
    one, two = peers(2)
    swarm = deploy(admin)
    wait_until(know([one, two], swarm))
    two.close()
    again = bench.node(2, silent, peer_addresses=(at(9),))
    wait_until(know([one, again], swarm))
    wait_until(lambda: known(one, swarm)["node-2"].addresses == (at(9),))


def test_when_a_swarm_is_over_its_nodes_forget_each_other(bench, admin: Client, peers) -> None:
    nodes = peers(2)
    swarm = deploy(admin)
    wait_until(know(nodes, swarm))
    admin.ask(StopSwarm(swarm))
    wait_until(lambda: not any(known(node, swarm) for node in nodes))


def test_after_a_restart_of_the_manager_nobody_was_forgotten_meanwhile(
    bench, admin: Client, peers
) -> None:
    """A node that is slow to come back is still in the directory of those that are quick."""
    nodes = peers(3)
    swarm = deploy(admin)
    wait_until(know(nodes, swarm))
    before = known(nodes[0], swarm)
    heard = [len(node.heard) for node in nodes]
    nodes[2].close()
    bench.restart()
    one, two, _ = nodes
    wait_until(lambda: one.registrations == two.registrations == 2)
    admin.ask(GetSwarm(swarm))
    assert known(one, swarm) == known(two, swarm) == before
    told = [one for node, seen in zip(nodes, heard, strict=True) for one in node.heard[seen:]]
    assert not [message for message in told if getattr(message, "departed", ())]


def test_after_the_manager_was_killed_its_nodes_know_each_other_as_before(bench) -> None:
    bench.stop()
    with Process(bench.home, *ANYWHERE) as process:
        file = process.start()
        admin = bench.undo.enter_context(Client(file.users, file.public_key, keys=bench.admin_keys))
        bench.nodes_at, bench.key = file.nodes, file.public_key
        nodes = [bench.node(number, silent, peer_addresses=(at(number),)) for number in (1, 2)]
        for node in nodes:
            assert node.registered.wait(60)
        swarm = deploy(admin)
        wait_until(know(nodes, swarm))
        before = known(nodes[0], swarm)
        process.kill()
        process.start()
        wait_until(lambda: all(node.registrations == 2 for node in nodes))
        wait_until(lambda: all(is_sure(node, swarm) for node in nodes))
        assert admin.ask(GetSwarm(swarm)).status == "ACTIVE"
        assert known(nodes[0], swarm) == known(nodes[1], swarm) == before
        admin.ask(RemoveNode(nodes[1].node_id))  # what changes now is told as ever
        wait_until(lambda: departed(nodes[0], swarm, nodes[1]))
        assert known(nodes[0], swarm) == {"node-1": before["node-1"]}


def test_a_restored_manager_begins_another_epoch_each_time(
    bench, admin: Client, peers, tmp_path: Path
) -> None:
    nodes = peers(2)
    swarm = deploy(admin)
    wait_until(know(nodes, swarm))
    assert epoch(nodes[0], swarm) == ""
    backup(Home(bench.home), tmp_path / "backup")
    epochs = [""]
    for place in (Home(tmp_path / "first"), Home(tmp_path / "second")):
        bench.stop()
        restore(tmp_path / "backup", place)
        bench.settings = replace(bench.settings, home=place.path)
        bench.start()
        wait_until(lambda: all(epoch(node, swarm) not in (None, *epochs) for node in nodes))
        wait_until(know(nodes, swarm))
        assert epoch(nodes[0], swarm) == epoch(nodes[1], swarm)
        epochs.append(str(epoch(nodes[0], swarm)))
    assert len(set(epochs)) == 3
    bench.restart()  # that is none
    wait_until(lambda: all(node.registered.is_set() for node in nodes))
    wait_until(know(nodes, swarm))
    assert epoch(nodes[0], swarm) == epochs[-1]


def test_an_older_database_begins_another_epoch(
    bench, admin: Client, peers, tmp_path: Path
) -> None:
    nodes = peers(2)
    swarm = deploy(admin)
    wait_until(know(nodes, swarm))
    bench.restart()  # folds the log into the database
    made_at, copy = time.time(), shutil.copy(bench.home / "manta.db", tmp_path)
    wait_until(lambda: all(node.registered.is_set() for node in nodes))
    bench.stop()
    for suffix in ("", "-wal", "-shm"):
        (bench.home / f"manta.db{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, bench.home / "manta.db")
    Home(bench.home).write_restored_file(RestoredFile("of yesterday", made_at))
    bench.start()
    wait_until(lambda: all(epoch(node, swarm) == "of yesterday" for node in nodes))
    wait_until(know(nodes, swarm))


def test_a_node_of_the_version_before_is_told_nothing_and_told_of_to_nobody(
    bench, admin: Client, peers
) -> None:
    one, two = peers(2)
    old = bench.node(3, silent, peer_addresses=None)
    assert old.registered.wait(60)
    swarm = deploy(admin)
    wait_until(know([one, two], swarm, "node-1", "node-2"))
    alone = SwarmSpec("s", (TaskSpec("task", "m", specified_ids=("node-3",)),), (MODULE,))
    plan = admin.ask(CheckSwarm("lab", alone)).plan
    (verdict,) = [one for one in plan.verdicts if one.node_alias == "node-3"]
    assert (verdict.accepted, verdict.rule) == (False, "direct")
    (problem,) = plan.problems
    assert problem == (
        "Task 'task' cannot be placed: node-3 has an earlier version of Manta, which exchanges "
        "nothing with other nodes; install this version of Manta on the nodes, and restart them."
    )
    assert old.ran == []
    assert old.directories.all() == []
    assert not any(isinstance(message, PeersChanged) for message in old.heard)


@pytest.mark.parametrize(
    "addresses",
    [
        ("10.0.0.1:70",),
        ("tcp://0.0.0.0:70",),
        ("tcp://169.254.1.2:70",),
        ("tcp://[fe80::1]:70",),
        (at(1), "tcp://host:0"),
        ("udp://h:7",),
    ],
)
def test_addresses_that_nobody_can_connect_to_are_refused(bench, addresses) -> None:
    client = bench.client(bench.node_keys[0], at=bench.nodes_at)
    refusal = client.refusal(Register("node-1", Capabilities(), peer_addresses=addresses))
    assert refusal.code == Code.INVALID
    assert client.ask(Register("node-1", Capabilities(), peer_addresses=(at(1),))).alias == "node-1"


@pytest.mark.parametrize("addresses", [(at(1),) * 9, ("tcp://" + "h" * 300 + ":7",), ("",)])
def test_who_names_too_much_loses_the_link(bench, addresses) -> None:
    client = bench.client(bench.node_keys[0], at=bench.nodes_at)
    client.ask(Register("node-1", Capabilities()))
    before = len(client.states)
    with pytest.raises(ActorError):
        client.gateway.ask(Register("node-1", Capabilities(), peer_addresses=addresses), timeout=5)
    wait_until(lambda: any(state is not None for state in client.states[before:]))


# Rosters.


def rosters(node: FakeNode, swarm: str) -> list[Roster]:
    """Every roster that the node was told of the swarm, in order."""
    found: list[Roster] = []
    parts: list[RosterTold] = []
    for message in list(node.heard):
        if isinstance(message, RosterTold) and message.swarm_id == swarm:
            parts.append(message)
            if not message.more:
                found.append(apply(parts, found[-1] if parts[0].since else None))
                parts = []
    return found


def test_who_wants_a_roster_is_told_the_latest_in_the_end(bench, admin: Client, peers) -> None:
    nodes = peers(3, lambda _: [])
    one, two, three = nodes
    swarm = deploy(admin, one, two, quorum=0.1, deadline=60.0)
    wait_until(know([one, two], swarm))
    one.ask(WantRoster(swarm))
    wait_until(lambda: rosters(one, swarm))
    [task] = rosters(one, swarm)[-1].tasks.values()
    assert (task.phase, task.size) == ("RUNNING", 2)
    assert {(who.node_alias, who.state) for who in task.instances} == {
        ("node-1", "PLACED"),
        ("node-2", "PLACED"),
    }
    assert all(who.places == 1 for who in task.instances)
    two.say(swarm, TaskStarted(two.ran[0], 0.0))

    def states() -> list[str]:
        return sorted(one.state for one in rosters(nodes[0], swarm)[-1].tasks["task"].instances)

    wait_until(lambda: states() == ["PLACED", "RUNNING"])
    admin.ask(RemoveNode(two.node_id))
    wait_until(lambda: states() == ["INTERRUPTED", "PLACED"])
    assert not rosters(two, swarm)  # it did not want it
    for asks in (three, two):
        with pytest.raises(ActorError):
            asks.ask(WantRoster(swarm), timeout=2.0)
    assert not rosters(three, swarm)


def test_a_roster_is_told_no_more_once_it_is_not_wanted(bench, admin: Client, peers) -> None:
    one, two = peers(2, lambda _: [])
    swarm = deploy(admin)
    wait_until(know([one, two], swarm))
    for node in (one, two):
        node.ask(WantRoster(swarm))
    wait_until(lambda: rosters(one, swarm) and rosters(two, swarm))
    one.ask(WantRoster(swarm, wanted=False))
    seen = len(rosters(one, swarm))
    two.say(swarm, TaskStarted(two.ran[0], 0.0))
    wait_until(lambda: len(rosters(two, swarm)) > 1)
    assert len(rosters(one, swarm)) == seen


def test_a_node_that_was_lost_over_a_link_that_held_asks_for_rosters_again(
    bench, admin: Client, peers
) -> None:
    bench.settings = replace(bench.settings, lease=2.0)
    bench.restart()
    one, two, *_ = nodes = peers(4, lambda _: [])
    swarm = deploy(admin, quorum=0.1, deadline=60.0)
    wait_until(know(nodes, swarm))
    one.ask(WantRoster(swarm))
    wait_until(lambda: rosters(one, swarm))
    machine = Rosters()
    machine.registered(has_rosters=True)
    machine.want(swarm)
    for message in list(one.heard):
        if isinstance(message, RosterTold):
            machine.told(message)
    assert machine.heard(one.ask(Heartbeat(0, Load())).rosters) == []
    registrations, one.heartbeat = one.registrations, False
    wait_until(lambda: departed(two, swarm, one))
    assert machine.heard(one.ask(Heartbeat(0, Load())).rosters) == [WantRoster(swarm)]
    assert one.registrations == registrations  # the link held


def test_many_changes_are_told_together(bench, admin: Client, peers) -> None:
    """Two hundred instances begin one after another: what is told is far less often."""
    [one] = peers(1, lambda _: [], capabilities=Capabilities(cores=4, max_concurrent_tasks=200))
    swarm = deploy(admin, replicas=200)
    wait_until(lambda: len(one.ran) == 200)
    one.ask(WantRoster(swarm))
    began = time.monotonic()
    for instance in list(one.ran):
        one.say(swarm, TaskStarted(instance, 0.0))

    def running() -> int:
        told = rosters(one, swarm)
        states = [who.state for who in told[-1].tasks["task"].instances] if told else []
        return states.count("RUNNING")

    wait_until(lambda: running() == 200)
    took = time.monotonic() - began
    assert len(rosters(one, swarm)) <= 20 * took + 2


def test_from_its_roster_a_node_says_what_the_manager_says(bench, admin: Client, peers) -> None:
    """Whom a task waits for, and why in vain: in the same words."""
    one, two = peers(2)
    swarm = deploy(admin, one, two, quorum=0.5, deadline=60.0)
    wait_until(know([one, two], swarm))
    one.ask(WantRoster(swarm))
    [mine], [other] = one.ran, two.ran
    one.say(swarm, Contributed(mine, 0, "barrier()"))
    reads = {
        "barrier": ReadContributions(mine, 0, "barrier()"),
        "broadcast": ReadBroadcast(mine, "x"),
        "letter": ReadMessage(mine, two.node_id, "x", 0),
    }

    def by_roster() -> dict[str, Outlook]:
        known = rosters(one, swarm)[-1]
        task = known.tasks["task"]
        lost = waits.lost(task, [other.index])
        how = waits.in_vain if lost else waits.missing
        return {
            "barrier": how(task, "barrier()", [other.index]),
            "broadcast": waits.broadcast(known, mine, "x"),
            "letter": waits.letter(known, mine, two.node_id, "x"),
        }

    def by_manager() -> dict[str, Outlook]:
        found = {name: one.ask(read) for name, read in reads.items()}
        assert not any(answer.ready for answer in found.values())
        return {name: Outlook(answer.error, answer.sentence) for name, answer in found.items()}

    def all_of(error: str) -> bool:
        return [said.error for said in by_roster().values()].count(error) > 0

    wait_until(lambda: rosters(one, swarm) and all_of(""))
    wait_until(lambda: "running" in by_roster()["barrier"].sentence)
    wait_until(lambda: by_roster() == by_manager())  # once what was contributed is stored
    two.say(swarm, TaskEnded(other, "FINISHED", 0.0))
    wait_until(lambda: all_of("PeerLost"))
    assert by_roster() == by_manager()
    assert [said.error for said in by_roster().values()] == ["PeerLost", "NothingSent", "PeerLost"]


def test_who_asks_all_the_time_is_told_no_more_often(bench, admin: Client, peers) -> None:
    [one] = peers(1, lambda _: [])
    swarm = deploy(admin)
    wait_until(lambda: one.ran)
    began = time.monotonic()
    for _ in range(300):
        one.tell(WantRoster(swarm))
    one.ask(WantRoster(swarm))
    wait_until(lambda: rosters(one, swarm))
    one.ask(WantRoster(swarm))  # behind all others
    assert len(rosters(one, swarm)) <= 20 * (time.monotonic() - began) + 2
