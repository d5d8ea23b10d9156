"""What users, nodes and tasks can fill is bounded, and whoever reaches a bound is told."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator

import pytest
from blake3 import blake3
from msgspec.structs import replace

from manta.actors import Refused
from manta.manager.quotas import memory
from manta.manager.quotas.table import Quota
from manta.manager.store.records import QuotaRecord
from manta.protocol.clusters import CreateCluster, CreateNodeToken, DeleteCluster, ListClusters
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll
from manta.protocol.node import (
    JournalEntry,
    LogLine,
    MetricsLogged,
    Progressed,
    ResultWritten,
    TaskEnded,
)
from manta.protocol.quotas import GetQuotas, GetSwarmQuotas, SetQuota
from manta.protocol.sign_in import CreateUserToken, SignIn
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import (
    FeedName,
    GetSwarm,
    ListSwarms,
    ReadFeed,
    RemoveSwarm,
    SendSwarm,
    SetGlobal,
    StopSwarm,
    WaitSwarm,
)
from manta.protocol.users import (
    AddUser,
    CreateRoleDefinition,
    DeleteRoleDefinition,
    DeleteUser,
    GrantRole,
    RemoveModule,
    SendModule,
)
from manta.protocol.values import BlobRef, Inline
from manta.testing import wait_until
from manta.testing.manager import Client
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.errors import BlobRefused
from tests.integration.manager.conftest import Bench
from tests.integration.manager.test_swarms import deploy, round_trip, silent

PASSWORD = "correct-horse"


@pytest.fixture
def ada(bench: Bench, admin: Client) -> Client:
    """A user without a role."""
    admin.ask(AddUser("ada@lab", PASSWORD))
    client = bench.client()
    client.ask(SignIn("ada@lab", PASSWORD))
    return client


def limit(admin: Client, quota: str, value: int | None, user: str = "ada@lab") -> None:
    admin.ask(SetQuota(quota, value, user=user))


def used(client: Client, quota: str) -> int | None:
    return next(one.used for one in client.ask(GetQuotas()).quotas if one.name == quota)


def accepted(client: Client, messages: Iterator[object]) -> int:
    """How many are, until the first is refused for a quota."""
    refusals = (refused(client, message) for message in messages)
    count, refusal = next((n, one) for n, one in enumerate(refusals) if one is not None)
    assert refusal.code == Code.QUOTA
    assert refusal.data["have"] + refusal.data["asked"] > refusal.data["limit"]
    assert "administrator" in refusal.sentence
    return count


def refused(client: Client, message: object) -> Refused | None:
    try:
        client.ask(message)
    except Refused as refusal:
        return refusal
    return None


def test_a_user_without_a_role_makes_as_many_clusters_as_the_quota_says(
    admin: Client, ada: Client
) -> None:
    before = threading.active_count()
    made = accepted(ada, (CreateCluster(f"c-{n}") for n in range(1000)))
    assert made == used(ada, "clusters") == 20
    assert threading.active_count() <= before + 1  # none of them has a thread
    assert len(ada.ask(ListClusters()).clusters) == made
    ada.ask(DeleteCluster("c-3"))
    ada.ask(CreateCluster("another"))
    admin.ask(CreateCluster("of the administrator"))


def test_requests_that_are_sent_side_by_side_get_no_more(ada: Client) -> None:
    asked = [ada.gateway.ask_future(CreateCluster(f"c-{n}"), timeout=20) for n in range(100)]
    errors = [one.exception(60) for one in asked]
    assert sum(error is None for error in errors) == 20
    assert all(isinstance(error, Refused) and error.code == "quota" for error in errors if error)


def test_limits_are_set_by_role_cluster_and_user_and_shown(
    bench: Bench, admin: Client, ada: Client
) -> None:
    refusal = ada.refusal(SetQuota("clusters", 50, user="ada@lab"))
    assert refusal.code == Code.FORBIDDEN
    shown = admin.ask(SetQuota("clusters", 2, role="user"))
    assert (shown.scope, shown.subject) == ("role", "user")
    assert accepted(ada, (CreateCluster(f"c-{n}") for n in range(9))) == 2
    limit(admin, "clusters", 3)
    bench.restart()
    [mine] = [one for one in ada.ask(GetQuotas()).quotas if one.name == "clusters"]
    assert (mine.used, mine.limit, mine.source) == (2, 3, "set for the user")
    assert accepted(ada, (CreateCluster(f"d-{n}") for n in range(9))) == 1
    limit(admin, "clusters", None)
    [mine] = [one for one in ada.ask(GetQuotas()).quotas if one.name == "clusters"]
    assert (mine.limit, mine.source) == (2, "set for the role user")
    assert ada.refusal(GetQuotas(user="me@localhost")).code == Code.FORBIDDEN
    assert admin.ask(GetQuotas(user="ada@lab")).subject == "ada@lab"
    assert ada.refusal(GetQuotas(cluster="lab")).code == Code.UNKNOWN_CLUSTER
    for wrong in (
        SetQuota("disks", 1, role="user"),
        SetQuota("clusters", 1),
        SetQuota("clusters", 1, role="user", cluster="lab"),
        SetQuota("clusters", 1, cluster="lab"),
    ):
        assert admin.refusal(wrong).code == Code.INVALID
    assert admin.refusal(SetQuota("clusters", 1, role="usr")).code == Code.UNKNOWN_ROLE


def test_swarms_that_are_not_over_are_bounded_by_user_and_by_cluster(
    admin: Client, ada: Client, cluster
) -> None:
    admin.ask(GrantRole("ada@lab", "lab", "researcher"))
    limit(admin, "live-swarms", 3)
    sent = (SendSwarm("lab", round_trip(), wait=True) for _ in range(9))
    assert accepted(ada, sent) == 3
    first = ada.ask(ListSwarms()).swarms[0].swarm_id
    ada.ask(StopSwarm(first))
    wait_until(lambda: used(ada, "live-swarms") == 2)
    ada.ask(SendSwarm("lab", round_trip(), wait=True))
    limit(admin, "live-swarms", None)
    admin.ask(SetQuota("swarms", 4, cluster="lab"))  # all that are there, of whoever
    refusal = admin.refusal(SendSwarm("lab", round_trip(), wait=True))
    assert refusal.sentence.startswith("This cluster has 4 swarms and asks for 1 more")
    ada.ask(RemoveSwarm(first))
    admin.ask(SendSwarm("lab", round_trip(), wait=True))


def test_modules_and_tokens_and_nodes_are_bounded(
    bench: Bench, admin: Client, ada: Client, cluster
) -> None:
    admin.ask(GrantRole("ada@lab", "lab", "researcher"))
    for quota, value in (("modules", 2), ("tokens", 5), ("nodes", 1)):
        limit(admin, quota, value)
    sent = (SendModule(ModuleSpec(f"m{n}", image="i")) for n in range(9))
    assert accepted(ada, sent) == 2
    ada.ask(RemoveModule("m0"))
    ada.ask(SendModule(ModuleSpec("m9", image="i")))
    ada.ask(CreateCluster("own"))
    token = ada.ask(CreateNodeToken("own", uses=9)).token
    assert accepted(ada, iter([CreateUserToken(), CreateNodeToken("own")] * 9)) == 3
    assert used(ada, "tokens") == 5  # and the one of the sign-in
    nodes = [bench.client(at=bench.nodes_at) for _ in range(2)]
    nodes[0].ask(Enroll(token, "n0", id_mode="random"))
    refusal = nodes[1].refusal(Enroll(token, "n1", id_mode="random"))
    assert refusal.sentence.startswith("The user ada@lab has 1 nodes and asks for 1 more")


def test_values_that_nothing_names_are_bounded_before_they_are_moved(
    bench: Bench, admin: Client, ada: Client
) -> None:
    limit(admin, "unnamed-blobs", 3)
    limit(admin, "unnamed-bytes", 1000)
    depot = MemoryDepot(1 << 20)
    bulk = CurveBulk(ada.keys, depot)
    try:
        peer = bulk.dial(bench.manager.context.bulk.address, bench.key)
        large = depot.put(bytes(1001))
        with pytest.raises(BlobRefused, match=r"asks for 1001 B more, .* is 1000 B"):
            peer.push(large, 1001, timeout=30).result(30)
        for number in range(3):
            peer.push(depot.put(bytes([number])), 1, timeout=30).result(60)
        with pytest.raises(BlobRefused, match="quota unnamed-blobs is 3"):
            peer.push(depot.put(b"x"), 1, timeout=30).result(30)
        assert large not in bench.manager.context.depot
        assert (used(ada, "unnamed-blobs"), used(ada, "unnamed-bytes")) == (3, 3)
        admin.ask(GrantRole("ada@lab", "lab", "researcher"))
        named = BlobRef(blake3(bytes([1])).hexdigest(), 1)
        ada.ask(SendModule(ModuleSpec("m", named)))
        assert (used(ada, "unnamed-blobs"), used(ada, "blobs")) == (2, 1)
        peer.push(depot.put(b"x"), 1, timeout=30).result(60)
    finally:
        bulk.close()
        depot.close()


def test_a_node_is_bounded_as_well_and_its_operator_can_read_why(
    bench: Bench, admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    admin.ask(SetQuota("unnamed-blobs", 2, role="user"))
    depot = MemoryDepot(1 << 20)
    bulk = CurveBulk(bench.node_keys[0], depot)
    try:
        peer = bulk.dial(bench.manager.context.bulk.address, bench.key)
        for number in range(2):
            peer.push(depot.put(bytes([number])), 1, timeout=30).result(60)
        for _ in range(3):
            with pytest.raises(BlobRefused, match="The node node-1 has 2 values that were pushed"):
                peer.push(depot.put(b"x"), 1, timeout=30).result(30)
    finally:
        bulk.close()
        depot.close()
    told = [one for one in caplog.messages if one.startswith("manager/blobs: The node node-1 has")]
    assert len(told) == 1


def swarm_of_ada(admin: Client, ada: Client, node, **limits: int) -> str:
    admin.ask(GrantRole("ada@lab", "lab", "researcher"))
    for name, value in limits.items():
        limit(admin, name.replace("_", "-"), value)
    swarm = deploy(ada, round_trip())
    wait_until(lambda: node.acknowledged.get(swarm) == 1)
    return swarm


def now_in(client: Client, swarm: str, feed: FeedName) -> list:
    return list(client.ask(ReadFeed(swarm, feed, limit=10_000)).items)


def quota_events(client: Client, swarm: str) -> list[str]:
    return [item.sentence for item in now_in(client, swarm, "events") if item.kind == "quota"]


def test_a_swarm_goes_on_without_the_metrics_that_are_too_many(
    bench: Bench, admin: Client, ada: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    swarm = swarm_of_ada(admin, ada, node, metrics=10, progress=5)
    at = node.ran[0]
    before = bench.manager.context.reader.extent(swarm).event_bytes
    for start in range(0, 2000, 200):
        entries: list[JournalEntry] = []
        for number in range(start, start + 200):
            entries.append(MetricsLogged(at, {"loss": 1.0}, number, 0.0))
            entries.append(Progressed(at, (number + 1) / 2000, "x" * 100, 0.0))
        node.say(swarm, *entries)
    wait_until(lambda: node.acknowledged[swarm] == 4001)
    assert len(now_in(ada, swarm, "metrics")) == 10
    told = quota_events(ada, swarm)
    assert len(told) == 2
    assert any("has 10 metrics and asks for 1 more, and the quota metrics is 10" in o for o in told)
    assert bench.manager.context.reader.extent(swarm).event_bytes < before + 20_000
    shown = {one.name: one for one in ada.ask(GetSwarmQuotas(swarm)).quotas}
    assert (shown["metrics"].used, shown["metrics"].limit) == (10, 10)
    bench.restart()  # the numbers of its journal go on
    assert node.registered.wait(60)
    node.say(swarm, ResultWritten(at, "r", Inline(b"")), TaskEnded(at, "FINISHED", 0.0))
    wait_until(lambda: node.acknowledged[swarm] >= 4003)
    assert len(now_in(ada, swarm, "results")) == 1


def test_all_that_a_users_swarms_are_and_say_is_bounded_together(
    bench: Bench, admin: Client, ada: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    swarm = swarm_of_ada(admin, ada, node, stored_bytes=20_000)
    spec = replace(round_trip(), globals={"g": Inline(bytes(9000))})
    other = ada.ask(SendSwarm("lab", spec, wait=True)).swarm_id
    refusal = ada.refusal(SendSwarm("lab", replace(spec, globals={"g": Inline(bytes(15_000))})))
    assert refusal.data["quota"] == "stored-bytes"
    at = node.ran[0]
    for number in range(20):
        node.say(swarm, ResultWritten(at, f"r{number}", Inline(bytes(1000))))
    assert "the quota stored-bytes is" in ada.ask(WaitSwarm(swarm, 20.0), 30.0).reason
    before = used(ada, "stored-bytes")
    assert 9000 < (before or 0) < 22_000
    ada.ask(StopSwarm(other))  # always
    ada.ask(RemoveSwarm(other))
    wait_until(lambda: (used(ada, "stored-bytes") or 0) < (before or 0) - 8000)
    bench.restart()
    assert used(ada, "stored-bytes") == bench.manager.context.reader.extent(swarm).event_bytes


@pytest.mark.parametrize("quota", ["results", "history_bytes", "state_bytes"])
def test_a_swarm_fails_with_the_arithmetic_of_what_it_relies_on(
    bench: Bench, admin: Client, ada: Client, nodes, quota: str
) -> None:
    [node] = nodes(1, silent)
    most = {"results": 10, "history_bytes": 3000, "state_bytes": 8000}[quota]
    swarm = swarm_of_ada(admin, ada, node, **{quota: most})
    at = node.ran[0]
    for number in range(50):
        node.say(swarm, ResultWritten(at, f"r{number}", Inline(bytes(100))))
    over = ada.ask(WaitSwarm(swarm, 20.0), 30.0)
    assert over.status == "FAILED"
    assert f"the quota {quota.replace('_', '-')} is" in over.reason
    wait_until(lambda: node.acknowledged[swarm] == 51)  # the node can forget it
    kept = len(now_in(ada, swarm, "results"))
    assert 0 < kept <= 15
    for number in range(50):  # a node that goes on all the same fills nothing
        node.say(swarm, ResultWritten(at, f"s{number}", Inline(bytes(100))))
    wait_until(lambda: node.acknowledged[swarm] == 101)
    assert len(now_in(ada, swarm, "results")) == kept
    size = bench.manager.context.reader.extent(swarm).event_bytes
    bench.restart()
    assert node.registered.wait(60)
    node.say(swarm, ResultWritten(at, "again", Inline(bytes(100))))
    wait_until(lambda: node.acknowledged[swarm] == 102)
    assert bench.manager.context.reader.extent(swarm).event_bytes == size


def test_a_task_that_fills_memory_ends_its_swarm_alone_and_the_next_start_loads_no_more(
    bench: Bench, admin: Client, ada: Client, nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    [node] = nodes(1, silent)
    swarm = swarm_of_ada(admin, ada, node, state_bytes=8 << 20)
    held = bench.manager.context.quotas.ledger.held_by
    at = node.ran[0]
    for _ in range(400):  # 24 MB
        node.say(swarm, ResultWritten(at, "r", Inline(os.urandom(60_000))))
    over = ada.ask(WaitSwarm(swarm, 20.0), 30.0)
    assert over.status == "FAILED"
    assert "the quota state-bytes is 8.0 MiB (set for the user)" in over.reason
    wait_until(lambda: node.acknowledged[swarm] == 401)
    assert 4 << 20 < held(swarm) < 9 << 20
    counted = {one.name: one.used for one in ada.ask(GetSwarmQuotas(swarm)).quotas}
    assert (counted["results"] or 0) > 60
    monkeypatch.setattr(memory, "here", lambda: memory.Memory(48 << 20))
    bench.restart()
    refusal = ada.refusal(ReadFeed(swarm, "results"))  # its share of those that are over: 4 MiB
    assert "is not loaded: The user ada@lab has 0 B of what swarms hold in memory" in (
        refusal.sentence
    )
    assert ada.ask(ListSwarms()).swarms[0].status == "FAILED"
    assert used(ada, "memory-bytes") == 0


def test_log_lines_beyond_the_quota_are_left_out_once_told(
    bench: Bench, admin: Client, ada: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    swarm = swarm_of_ada(admin, ada, node, log_lines=100)
    at = node.ran[0]
    for start in range(0, 1000, 50):
        lines = (LogLine(at, 0.0, "stdout", f"line {n}") for n in range(start, start + 50))
        node.log(swarm, *lines)
    reader = bench.manager.context.reader
    wait_until(lambda: reader.log_ends(swarm) == {node.node_id: 1000})
    assert reader.extent(swarm).lines == 101
    bench.restart()
    assert node.registered.wait(60)
    node.log(swarm, LogLine(at, 0.0, "stdout", "more"))
    wait_until(lambda: bench.manager.context.reader.log_ends(swarm) == {node.node_id: 1001})
    shown = [item.line.text for item in now_in(ada, swarm, "logs")]
    assert shown[:100] == [f"line {n}" for n in range(100)]
    assert re.search(r"has 100 log lines and asks for \d+ more", shown[100])
    assert shown[100].endswith("What comes later is left out.")


def test_globals_of_users_are_bounded_at_deployment_and_later(
    admin: Client, ada: Client, nodes
) -> None:
    [node] = nodes(1, silent)
    swarm = swarm_of_ada(admin, ada, node, globals=3)
    assert accepted(ada, (SetGlobal(swarm, f"t{n}", Inline(b"")) for n in range(9))) == 3
    ada.ask(SetGlobal(swarm, "t0", Inline(b"again")))
    assert ada.ask(GetSwarm(swarm)).status == "ACTIVE"


def test_a_limit_that_is_lower_than_what_is_there_takes_nothing_away(
    admin: Client, ada: Client
) -> None:
    for number in range(5):
        ada.ask(CreateCluster(f"c-{number}"))
    limit(admin, "clusters", 1)
    assert len(ada.ask(ListClusters()).clusters) == 5
    assert ada.refusal(CreateCluster("c-9")).data == {
        "quota": str(Quota.CLUSTERS),
        "have": 5,
        "asked": 1,
        "limit": 1,
    }


def test_what_was_set_goes_with_whom_it_was_set_for(
    bench: Bench, admin: Client, ada: Client
) -> None:
    limit(admin, "clusters", 1)
    ada.ask(CreateCluster("own"))
    admin.ask(SetQuota("results", 5, cluster="own"))
    admin.ask(CreateRoleDefinition("reader", ("swarm.read",)))
    admin.ask(SetQuota("modules", 5, role="reader"))
    admin.ask(DeleteCluster("own"))
    admin.ask(DeleteUser("ada@lab"))
    admin.ask(DeleteRoleDefinition("reader"))
    assert bench.manager.context.reader.all(QuotaRecord) == []
