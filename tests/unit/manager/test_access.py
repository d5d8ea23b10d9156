"""Who may have which blob, with a store in memory and a clock of the test's."""

from __future__ import annotations

import pytest

from manta.manager.access import LENT, LINGERS, MOST_LENT, Access
from manta.manager.auth.principals import Kind, Principal
from manta.manager.auth.roles import Roles
from manta.manager.gateway.registry import Registry
from manta.manager.store.interface import Reference, Release
from manta.manager.store.records import GrantRecord, ModuleRecord
from manta.manager.views import ClusterView
from manta.protocol.spec import ModuleSpec
from manta.protocol.user import SwarmInfo
from manta.protocol.values import BlobRef
from manta.testing.stores.memory import MemoryStore
from manta.transports.bulk.options import Verdict

VIEWER = Principal(Kind.USER, "k1", "viewer")
FOREIGN = Principal(Kind.USER, "k2", "foreign")
ADMIN = Principal(Kind.USER, "k3", "root", admin=True)
NODE = Principal(Kind.NODE, "k4", "n1", cluster_id="c1")
IDLE = Principal(Kind.NODE, "k5", "n2", cluster_id="c1")
ELSEWHERE = Principal(Kind.NODE, "k6", "n1", cluster_id="c2")
GUEST = Principal(Kind.GUEST, "k7")
EVERYBODY = (VIEWER, FOREIGN, ADMIN, NODE, IDLE, ELSEWHERE, GUEST)


class Bench:
    """In the cluster c1 the swarm s1 names d1; n1 runs an attempt of it, n2 does not."""

    def __init__(self) -> None:
        self.now = 0.0
        self.store = MemoryStore()
        self.store.commit([Reference("s1", ("d1",), "c1")])
        self.clusters = {"c1": ClusterView(held={"s1": {"n1": 1}}), "c2": ClusterView()}
        self.access = Access(self.store, self.clusters, lambda: self.now)
        grants = [GrantRecord("viewer", "c1", "viewer"), GrantRecord("foreign", "c2", "owner")]
        self.access.roles = Roles(grants)

    def may(self, digest: str) -> set[str]:
        """Keys of those who may fetch it."""
        verdict = self.access.verdict
        return {who.key for who in EVERYBODY if verdict(who, "fetch", digest) is Verdict.GRANTED}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def keys(*who: Principal) -> set[str]:
    return {one.key for one in who}


def test_a_blob_is_for_who_may_read_what_names_it(bench: Bench) -> None:
    assert bench.may("d1") == keys(VIEWER, NODE, ADMIN)
    assert bench.may("unnamed") == keys(ADMIN)
    verdict = bench.access.verdict
    assert verdict(FOREIGN, "fetch", "d1") is verdict(FOREIGN, "fetch", "none") is Verdict.REFUSED
    assert verdict(IDLE, "push", "d1") is verdict(IDLE, "push", "none") is Verdict.UNPROVEN
    assert verdict(NODE, "push", "d1") is Verdict.GRANTED
    assert verdict(GUEST, "push", "d1") is Verdict.REFUSED
    bench.clusters["c1"].held["s1"].clear()  # its attempts have ended
    assert bench.may("d1") == keys(VIEWER, ADMIN)


def test_the_end_of_a_role_is_the_end_of_what_it_gave(bench: Bench) -> None:
    del bench.access.roles.grants["viewer", "c1"]
    assert bench.may("d1") == keys(NODE, ADMIN)


def test_a_package_is_for_who_sees_the_module(bench: Bench) -> None:
    module = ModuleSpec("m", BlobRef("a" * 64, 1))
    bench.access.modules = Registry([ModuleRecord("m1", module, "foreign", 0.0, 0.0, ())])
    assert bench.may("a" * 64) == keys(FOREIGN, ADMIN)
    bench.access.modules = Registry([ModuleRecord("m1", module, "nobody", 0.0, 0.0, ("c1",))])
    assert bench.may("a" * 64) == keys(VIEWER, ADMIN)


def test_who_has_sent_a_blob_may_name_it_for_a_while(bench: Bench) -> None:
    bench.access.lend(FOREIGN, "sent")
    assert bench.may("sent") == keys(FOREIGN, ADMIN)
    bench.now = LENT - 1
    bench.access.lend(FOREIGN, "sent")
    bench.now = LENT + 1
    assert bench.may("sent") == keys(FOREIGN, ADMIN)
    bench.now = 2 * LENT
    assert bench.may("sent") == keys(ADMIN)


def test_what_one_sends_does_not_take_the_place_of_what_others_sent(bench: Bench) -> None:
    bench.access.lend(VIEWER, "theirs")
    for number in range(MOST_LENT + 1):
        bench.access.lend(FOREIGN, f"{number}")
    assert bench.may("theirs") == keys(VIEWER, ADMIN)
    assert bench.may("0") == keys(ADMIN)
    assert bench.may("1") == keys(FOREIGN, ADMIN)
    # A node may have the id of a user: it is somebody else.
    namesake = Principal(Kind.NODE, "k8", "viewer", cluster_id="c1")
    assert bench.access.readable(namesake, ["theirs"]) == set()


def test_what_is_forgotten_leaves_nothing_behind(bench: Bench) -> None:
    for number in range(100):
        bench.access.lend(Principal(Kind.USER, "k", f"user {number}"), "d")
    bench.now = LENT + 1
    bench.access.released("c1", "s1", ["d1", "d2"])
    bench.access.naming("c1", "s1", ["d1"])
    bench.access.named("c1", "s1", ["d1"])
    bench.access.naming("c1", "s1", ["d2"])
    bench.access.restarted("s1")
    bench.now += LINGERS + 1
    bench.access.released("c1", "s1", [])
    bench.access.lend(VIEWER, "d")
    assert list(bench.access._lent) == [(Kind.USER, "viewer")]
    assert not bench.access._naming
    assert not bench.access._released._names
    assert not bench.access._released._ends


def test_what_a_swarm_names_takes_no_room_of_what_its_nodes_were_lent(bench: Bench) -> None:
    for who in (NODE, IDLE):
        for digest in ("d2", "d3"):
            bench.access.lend(who, digest)
    for digests in (("d2",), ("d3",)):
        bench.access.naming("c1", "s1", digests)
        bench.store.commit([Reference("s1", digests, "c1")])
        bench.access.named("c1", "s1", digests)
        assert bench.may(digests[0]) == keys(VIEWER, NODE, IDLE, ADMIN)
    # The one that does not run the swarm could not read them otherwise.
    assert list(bench.access._lent) == [(Kind.NODE, "n2")]
    bench.access.lend(NODE, "d4")
    assert NODE.key in bench.may("d4")


def test_what_is_being_stored_may_be_read_already(bench: Bench) -> None:
    bench.access.naming("c1", "s1", ["d2"])
    bench.access.naming("c1", "s1", ["d2"])
    bench.access.named("c1", "s1", ["d2"])
    assert bench.may("d2") == keys(VIEWER, NODE, ADMIN)
    bench.access.named("c1", "s1", ["d2"])
    assert bench.may("d2") == keys(ADMIN)


def test_who_was_told_of_what_is_released_may_still_fetch_it(bench: Bench) -> None:
    bench.store.commit([Release("s1", ("d1",))])
    bench.access.released("c1", "s1", ["d1"])
    bench.now = LINGERS - 1
    assert bench.may("d1") == keys(VIEWER, NODE, ADMIN)
    bench.now = LINGERS
    assert bench.may("d1") == keys(ADMIN)


def test_once_a_swarm_that_runs_has_ended_with_its_manager_nodes_are_asked_to_come_again(
    bench: Bench,
) -> None:
    """Blobs are served a little longer than swarms say what nodes run."""
    view, verdict = bench.clusters["c1"], bench.access.verdict
    view.swarms = {"s1": info("s1", "ACTIVE"), "s2": info("s2", "COMPLETED")}
    assert verdict(NODE, "fetch", "d1") is Verdict.GRANTED
    assert verdict(IDLE, "fetch", "d1") is Verdict.REFUSED
    del view.held["s1"]
    assert verdict(NODE, "fetch", "d1") is Verdict.LATER
    assert verdict(VIEWER, "fetch", "d1") is Verdict.GRANTED
    assert verdict(ELSEWHERE, "fetch", "d1") is Verdict.REFUSED
    view.swarms["s1"] = info("s1", "STOPPED")
    assert verdict(NODE, "fetch", "d1") is Verdict.REFUSED


def info(swarm_id: str, status: str) -> SwarmInfo:
    return SwarmInfo(swarm_id, swarm_id, "c1", status)


def test_while_swarms_are_being_read_nodes_are_asked_to_come_again(bench: Bench) -> None:
    view = bench.clusters["c1"]
    view.held, view.unread = {}, {"s1"}
    verdict = bench.access.verdict
    assert verdict(NODE, "fetch", "d1") is Verdict.LATER
    assert verdict(ELSEWHERE, "fetch", "d1") is Verdict.REFUSED
    assert verdict(VIEWER, "fetch", "d1") is Verdict.GRANTED
    assert verdict(FOREIGN, "fetch", "d1") is Verdict.REFUSED
    view.held, view.unread = {"s1": {"n1": 1}}, set()
    assert verdict(NODE, "fetch", "d1") is Verdict.GRANTED
    assert verdict(IDLE, "fetch", "d1") is Verdict.REFUSED
