"""What keeps a running swarm waiting is told with whatever is read of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.apis.errors import Incomplete
from manta.apis.user_api import UserAPI
from manta.manager.store.sqlite import SqliteStore
from manta.protocol.clusters import ClusterInfo
from manta.protocol.node import Assignment, Instance, JournalEntry, MetricsLogged, TaskStarted
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    EventItem,
    ExplainSwarm,
    FeedPage,
    GetSwarm,
    ListSwarms,
    ReadFeed,
    SendSwarm,
    StartSwarm,
    StopSwarm,
    SwarmInfo,
    WaitSwarm,
    WatchSwarms,
)
from manta.testing import wait_until
from manta.testing.manager import Client, FakeNode
from manta.testing.stores.faulty import Faults, FaultyStore
from manta.transports.addresses import split_address

SPEC = SwarmSpec(
    name="fl", tasks=(TaskSpec("worker", "module"),), modules=(ModuleSpec("module", image="none"),)
)
LEASE = 4.0


def runs_on(assignment: Assignment) -> list[JournalEntry]:
    """A task that never ends."""
    return [TaskStarted(assignment.instance, 0.0)]


@pytest.fixture
def swarm(bench, admin: Client, cluster: ClusterInfo) -> str:
    """A swarm that runs on four nodes, with a lease of four seconds."""
    bench.settings = replace(bench.settings, lease=LEASE)
    bench.restart()
    bench.nodes = [bench.node(number, runs_on) for number in range(1, 5)]
    assert all(node.registered.wait(60) for node in bench.nodes)
    swarm_id: str = admin.ask(SendSwarm("lab", SPEC)).swarm_id
    admin.ask(StartSwarm(swarm_id))
    wait_until(lambda: sum(len(node.ran) for node in bench.nodes) == 4)
    return swarm_id


def reason(admin: Client, swarm: str) -> str:
    found: SwarmInfo = admin.ask(GetSwarm(swarm))
    return found.reason


def await_notice(admin: Client, swarm: str, told: str = "") -> FeedPage:
    """The next page that says something new of the swarm's situation."""
    cursor = 0
    while True:
        page: FeedPage = admin.ask(ReadFeed(swarm, "events", cursor, wait=10.0, told=told))
        if page.told != told:
            return page
        assert page.cursor > cursor, "nothing was told"
        cursor = page.cursor


def notice_of(page: FeedPage) -> str:
    item = page.items[-1]
    assert isinstance(item, EventItem)
    assert item.kind == "notice"
    return item.sentence


def test_a_silent_node_is_told_everywhere_and_so_is_its_return(
    bench, admin: Client, swarm: str
) -> None:
    silent: FakeNode = bench.nodes[1]
    silent.heartbeat = False
    page = await_notice(admin, swarm)
    said = "node-2 has been silent for 1 s and counts as lost in 3 s if it does not come back."
    assert notice_of(page) == said
    for told in (
        reason(admin, swarm),
        page.swarm.reason,
        admin.ask(WaitSwarm(swarm, 0.0)).reason,
        admin.ask(ListSwarms()).swarms[0].reason,
        admin.ask(WatchSwarms()).swarms[0].reason,
        *admin.ask(ExplainSwarm(swarm)).plan.notices,
    ):
        assert told.startswith("node-2 has been silent for ")
    again = admin.ask(ReadFeed(swarm, "events", page.cursor, told=page.told))
    assert (again.items, again.told) == ((), page.told)
    unasked = admin.ask(ReadFeed(swarm, "events", page.cursor))
    assert unasked.items == ()
    silent.heartbeat = True
    assert notice_of(await_notice(admin, swarm, page.told)) == (
        "What kept it waiting is over: it goes on."
    )
    assert reason(admin, swarm) == ""
    assert admin.ask(ExplainSwarm(swarm)).plan.notices == ()


def test_a_swarm_that_has_nothing_on_a_silent_node_is_not_bothered(
    bench, admin: Client, swarm: str
) -> None:
    named = replace_task(method="any", specified_ids=("node-1",))
    other = admin.ask(SendSwarm("lab", named)).swarm_id
    admin.ask(StartSwarm(other))
    bench.nodes[1].heartbeat = False
    await_notice(admin, swarm)
    assert reason(admin, other) == ""


def replace_task(**changes: object) -> SwarmSpec:
    task = TaskSpec("worker", "module", **changes)  # type: ignore[arg-type]
    return SwarmSpec(name="other", tasks=(task,), modules=SPEC.modules)


def test_the_loss_of_a_node_ends_what_was_told_of_it_with_the_remedies(
    bench, admin: Client, swarm: str
) -> None:
    bench.nodes[1].heartbeat = False
    ended = admin.ask(WaitSwarm(swarm, 20.0), timeout=60)
    assert ended.status == "FAILED"
    assert "node-2 was lost: no sign of life for 4 s; an `all` task needs" in ended.reason
    for argument in ("quorum=", "deadline=", "retries="):
        assert argument in ended.reason
    page = admin.ask(ReadFeed(swarm, "events", told=""))
    assert all(item.kind != "notice" for item in page.items)


def test_that_the_manager_may_be_isolated_is_a_reason(bench, admin: Client, swarm: str) -> None:
    for node in bench.nodes[:3]:
        node.heartbeat = False
    wait_until(lambda: "is the manager isolated?" in reason(admin, swarm))
    assert "is the manager isolated?" in admin.ask(ListSwarms()).swarms[0].reason
    told = reason(admin, swarm)
    assert "node-2 has been silent for " in told
    assert "counts as lost" not in told
    for node in bench.nodes[:3]:
        node.heartbeat = True
    wait_until(lambda: reason(admin, swarm) == "")


def test_a_node_that_is_behind_is_a_reason(bench, admin: Client, swarm: str) -> None:
    behind: FakeNode = bench.nodes[2]
    behind.mute = True
    behind.say(swarm, MetricsLogged(behind.ran[0], {"loss": 1.0}, 0, 0.0))
    page = await_notice(admin, swarm)
    assert notice_of(page).startswith("node-3 is behind: what it had to report ")
    assert page.swarm.complete
    behind.speak()
    await_notice(admin, swarm, page.told)
    assert reason(admin, swarm) == ""


def test_a_manager_that_has_returned_says_that_it_is_not_complete_yet(
    bench, admin: Client, swarm: str
) -> None:
    late: FakeNode = bench.nodes[3]
    late.mute = True
    wait_until(lambda: late.acknowledged.get(swarm) == 1)
    late.say(swarm, MetricsLogged(instance(late), {"loss": 1.0}, 0, 0.0))
    bench.restart()
    wait_until(lambda: late.registrations == 2 and bench.nodes[0].registrations == 2)
    wait_until(lambda: "Still hearing from 1 node (node-4)" in reason(admin, swarm))
    for info in (
        admin.ask(GetSwarm(swarm)),
        admin.ask(ListSwarms()).swarms[0],
        admin.ask(ReadFeed(swarm, "metrics")).swarm,
        admin.ask(ReadFeed(swarm, "logs")).swarm,
    ):
        assert not info.complete
    target = Target("127.0.0.1", split_address(bench.users_at)[1], "lab", None, bench.key)
    with UserAPI.over(Session(target, bench.admin_keys)) as api:
        with pytest.warns(Incomplete, match=r"'fl' is not complete yet: Still hearing from 1 node"):
            assert list(api.get_metrics(swarm)) == []
        assert not api.get_swarm(swarm).complete
        late.speak()
        wait_until(lambda: admin.ask(GetSwarm(swarm)).complete)
        assert len(api.get_metrics(swarm)) == 1
    [metrics] = admin.ask(ReadFeed(swarm, "metrics")).items
    assert metrics.metrics == {"loss": 1.0}
    assert reason(admin, swarm) == ""


def instance(node: FakeNode) -> Instance:
    return node.ran[0]


def test_a_manager_waits_for_the_nodes_that_it_had(bench, admin: Client, swarm: str) -> None:
    bench.nodes[3].close()
    bench.restart()
    wait_until(lambda: "Still hearing from 1 node (node-4)" in reason(admin, swarm))
    assert not admin.ask(GetSwarm(swarm)).complete


def test_a_full_disk_is_a_reason(bench, admin: Client, swarm: str) -> None:
    faults = Faults()
    bench.restart(lambda: FaultyStore(SqliteStore(bench.home / "manta.db"), faults))
    wait_until(lambda: admin.ask(GetSwarm(swarm)).complete)
    faults.full = True
    node: FakeNode = bench.nodes[0]
    node.say(swarm, MetricsLogged(instance(node), {"loss": 1.0}, 0, 0.0))
    page = await_notice(admin, swarm)
    assert "disk is full" in notice_of(page)
    assert "disk is full" in admin.ask(ListSwarms()).swarms[0].reason
    faults.full = False
    await_notice(admin, swarm, page.told)
    assert reason(admin, swarm) == ""


def test_a_swarm_that_has_ended_waits_for_nothing(bench, admin: Client, swarm: str) -> None:
    bench.nodes[1].heartbeat = False
    page = await_notice(admin, swarm)
    admin.ask(StopSwarm(swarm))
    after = admin.ask(ReadFeed(swarm, "events", page.cursor, told=page.told))
    assert all(item.kind != "notice" for item in after.items)
    assert after.swarm.reason == "stopped by me@localhost"
