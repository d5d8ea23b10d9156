"""Which limit applies to whom, and what a refusal says."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import NoReturn

import pytest

from manta.actors import Refused
from manta.manager.auth.roles import Roles
from manta.manager.quotas import threads
from manta.manager.quotas.ledger import Ledger
from manta.manager.quotas.limits import Limits
from manta.manager.quotas.memory import Memory, _bounds
from manta.manager.quotas.quotas import Quotas
from manta.manager.quotas.table import TABLE, Breach, Limit, Quota, find
from manta.manager.store.records import (
    ADMIN_ROLE,
    USER_ROLE,
    GrantRecord,
    QuotaRecord,
    UserRecord,
)
from manta.protocol.codes import Code

ADA = UserRecord("ada", "ada@lab", "", 0.0, USER_ROLE)
ROOT = UserRecord("root", "root@lab", "", 0.0, ADMIN_ROLE)


def limits(*records: QuotaRecord) -> Limits:
    found = Limits(records)
    roles = Roles([GrantRecord("ada", "lab", "owner"), GrantRecord("ada", "far", "viewer")])
    roles.grants = Grants(roles.grants)
    found.know(roles, {one.id: one for one in (ADA, ROOT)})
    return found


class Grants(dict[tuple[str, str], str]):
    """Of all users: a limit is looked up too often to look through them."""

    def _all(self, *_: object) -> NoReturn:
        raise AssertionError("all grants were looked through")

    __iter__ = keys = values = items = copy = _all


def test_every_quota_has_a_default_that_is_higher_for_administrators() -> None:
    assert set(TABLE) == set(Quota)
    assert all(0 < row.default <= row.of_admins for row in TABLE.values())
    found = limits()
    for quota, row in TABLE.items():
        assert found.of(quota, "ada") == Limit(row.default, "the default")
        assert found.of(quota, "root") == Limit(row.of_admins, "the default")
        assert found.of(quota, "nobody").value == row.default


def test_what_is_set_for_a_user_comes_before_what_is_set_for_a_role() -> None:
    by_role = QuotaRecord("role", "owner", {"clusters": 7})
    by_user = QuotaRecord("user", "ada", {"clusters": 2})
    assert limits(by_role).of(Quota.CLUSTERS, "ada") == Limit(7, "set for the role owner")
    assert limits(by_role, by_user).of(Quota.CLUSTERS, "ada") == Limit(2, "set for the user")
    assert limits(by_role, by_user).of(Quota.CLUSTERS, "root").source == "the default"


def test_of_several_roles_the_most_generous_counts() -> None:
    found = limits(
        QuotaRecord("role", "owner", {"clusters": 3}),
        QuotaRecord("role", "viewer", {"clusters": 9}),
        QuotaRecord("role", USER_ROLE, {"clusters": 5}),
    )
    assert found.of(Quota.CLUSTERS, "ada") == Limit(9, "set for the role viewer")


def test_a_swarms_quota_is_its_owners_then_its_clusters_then_the_roles_there() -> None:
    role = QuotaRecord("role", "viewer", {"results": 5})
    elsewhere = QuotaRecord("role", "owner", {"results": 50})
    cluster = QuotaRecord("cluster", "far", {"results": 4})
    user = QuotaRecord("user", "ada", {"results": 3})
    for records, value in (
        ((elsewhere,), TABLE[Quota.RESULTS].default),
        ((elsewhere, role), 5),
        ((elsewhere, role, cluster), 4),
        ((elsewhere, role, cluster, user), 3),
    ):
        assert limits(*records).of(Quota.RESULTS, "ada", "far").value == value


def test_all_users_of_a_cluster_together_are_bounded_where_that_is_set() -> None:
    quotas = Quotas(limits(QuotaRecord("cluster", "lab", {"live-swarms": 2})), Ledger(lambda _: 0))
    quotas.admit("s1", "ada", "lab", Quota.LIVE_SWARMS)
    quotas.admit("s2", "root", "lab", Quota.LIVE_SWARMS)
    with pytest.raises(Refused, match="This cluster has 2 swarms that are not over and asks for 1"):
        quotas.admit("s3", "root", "lab", Quota.LIVE_SWARMS)
    quotas.admit("s3", "root", "far", Quota.LIVE_SWARMS)


def test_all_live_swarms_of_a_manager_together_are_bounded_by_its_threads() -> None:
    quotas = Quotas(limits(), Ledger(lambda _: 0), live_swarms=2)
    undo = quotas.admit("s1", "ada", "lab", Quota.LIVE_SWARMS)
    quotas.admit("s2", "root", "far", Quota.LIVE_SWARMS)
    with pytest.raises(Refused, match="This manager has 2 swarms that are not over"):
        quotas.admit("s3", "root", "lab", Quota.LIVE_SWARMS)
    undo()
    quotas.admit("s3", "root", "lab", Quota.LIVE_SWARMS)


def test_what_swarms_hold_in_memory_is_bounded_by_swarm_user_and_machine() -> None:
    memory = Memory(1200)
    assert (memory.live, memory.of_user, memory.of_swarm) == (400, 200, 100)
    quotas = Quotas(limits(), Ledger(lambda _: 0), memory=memory)

    def hold(swarm: str, user: str, more: int, *, is_over: bool = False) -> Breach | None:
        size = quotas.ledger.held_by(swarm) + more
        return quotas.holding(swarm, f"The swarm {swarm}", user, "lab", size, is_over=is_over)

    assert hold("a1", "ada", 100) is None
    breach = hold("a1", "ada", 1)
    assert breach is not None
    assert breach.sentence.startswith(
        "The swarm a1 has 100 B of what it holds in memory and asks for 1 B more, and the quota "
        "state-bytes is 100 B (a 12th of the memory here)"
    )
    assert hold("a2", "ada", 100) is None
    breach = hold("a3", "ada", 1)
    assert breach is not None
    assert breach.sentence.startswith("The user ada@lab has 200 B of what swarms hold in memory")
    assert [hold(f"r{n}", f"root{n}", 100) for n in (1, 2)] == [None, None]
    assert hold("r3", "root", 25) is None, "a 16th in any case"
    breach = hold("r3", "root", 1)
    assert breach is not None
    assert breach.sentence.startswith("This manager has 425 B of what swarms hold in memory")
    assert hold("over", "ada", 100, is_over=True) is None, "it takes nothing from what runs"
    assert hold("other", "ada", 1, is_over=True) is not None
    assert hold("a1", "ada", -60) is None
    assert hold("r3", "root", 35) is None
    for swarm in ("a1", "a2", "over", "r1", "r2", "r3"):
        quotas.ledger.let_go(swarm)
    assert not quotas.ledger._used


def test_a_swarm_that_ends_makes_room_for_those_that_run() -> None:
    quotas = Quotas(limits(), Ledger(lambda _: 0), memory=Memory(1200))
    assert quotas.holding("a", "a", "ada", "lab", 90, is_over=False) is None
    assert quotas.holding("a", "a", "ada", "lab", 90, is_over=True) is None
    assert quotas.ledger.used(Quota.MEMORY_BYTES, "ada") == 0
    assert quotas.ledger.held_by("a") == 90


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({"cgroup/memory.max": "max\n", "cgroup/memory/memory.limit_in_bytes": "300\n"}, 300),
        ({"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "200\n"}, 200),
        ({"proc/self/cgroup": "7:memory:/c\n", "cgroup/memory/c/memory.limit_in_bytes": "9"}, 9),
    ],
)
def test_memory_is_that_of_the_machine_or_the_container(
    tmp_path: Path, files: dict[str, str], most: int
) -> None:
    assert min(_bounds(tmp_path / "proc", tmp_path / "cgroup")) > 1 << 20
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert min(_bounds(tmp_path / "proc", tmp_path / "cgroup")) == most


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, 2000),
        ({"proc/sys/kernel/threads-max": "500\n"}, 500),
        ({"cgroup/pids.max": "max\n", "cgroup/pids/pids.max": "300\n"}, 300),
        ({"proc/self/cgroup": "0::/a/b\n", "cgroup/a/b/pids.max": "200\n"}, 200),
        ({"proc/self/cgroup": "7:pids:/c\n", "cgroup/pids/c/pids.max": "100\n"}, 100),
    ],
)
def test_threads_are_bounded_by_the_machine_and_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert min(threads._bounds(tmp_path / "proc", tmp_path / "cgroup")) == most


def test_a_refusal_has_the_arithmetic_and_the_remedy() -> None:
    quotas = Quotas(limits(QuotaRecord("user", "ada", {"clusters": 1})), Ledger(lambda _: 0))
    quotas.admit("c1", "ada", "c1", Quota.CLUSTERS)
    with pytest.raises(Refused) as refused:
        quotas.admit("c2", "ada", "c2", Quota.CLUSTERS)
    assert refused.value.code == Code.QUOTA
    assert refused.value.sentence == (
        "The user ada@lab has 1 clusters and asks for 1 more, and the quota clusters is 1 (set "
        "for the user): delete one (manta cluster rm), or ask an administrator for more (manta "
        "quota set clusters)."
    )
    assert refused.value.data == {"quota": "clusters", "have": 1, "asked": 1, "limit": 1}


def test_bytes_are_shown_as_sizes() -> None:
    quotas = Quotas(limits(QuotaRecord("user", "ada", {"blob-bytes": 2048})), Ledger(lambda _: 0))
    breach = quotas.breach(Quota.BLOB_BYTES, "The user ada@lab", 1024, 4096, "ada")
    assert breach is not None
    assert "has 1.0 KiB of large values and asks for 4.0 KiB more" in breach.sentence
    assert "the quota blob-bytes is 2.0 KiB" in breach.sentence


def test_what_is_admitted_counts_before_it_is_stored_and_what_is_not_stored_does_not() -> None:
    quotas = Quotas(limits(QuotaRecord("user", "ada", {"swarms": 1})), Ledger(lambda _: 0))
    undo = quotas.admit("s1", "ada", "lab", Quota.SWARMS, Quota.LIVE_SWARMS)
    with pytest.raises(Refused):
        quotas.admit("s2", "ada", "lab", Quota.LIVE_SWARMS, Quota.SWARMS)
    assert quotas.ledger.used(Quota.LIVE_SWARMS, "ada") == 1  # the second left nothing behind
    undo()
    quotas.admit("s2", "ada", "lab", Quota.SWARMS, Quota.LIVE_SWARMS)


def test_an_unknown_quota_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(Refused, match="There is no quota 'disks'; there are: clusters, "):
        find("disks")
