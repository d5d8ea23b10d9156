"""Limits of tasks, control groups and Landlock, as far as they are decided without the kernel."""

from __future__ import annotations

import os
import resource
import struct
from pathlib import Path

import pytest

from manta.node.isolation import landlock, limits
from manta.node.isolation.cgroups import Group, Groups, Hierarchy, hierarchies, settings
from manta.node.isolation.enter import exposing
from manta.node.isolation.landlock import LIST, READ, Access, Rule
from manta.node.isolation.limits import Limits, Means, Measured, Plan, excess, pause, plan

MIB = 1 << 20
ALL = {"memory", "cpu", "pids"}
WATCHED = plan(())


# Limits.


@pytest.mark.parametrize(
    ("controllers", "expected"),
    [
        (ALL, Plan(Means.GROUP, Means.GROUP, Means.GROUP)),
        ({"memory", "pids"}, Plan(Means.GROUP, Means.NOTHING, Means.GROUP)),
        ({"cpu"}, Plan(Means.WATCHED, Means.GROUP, Means.WATCHED)),
        ((), Plan(Means.WATCHED, Means.NOTHING, Means.WATCHED)),
    ],
)
def test_a_group_where_there_can_be_one_else_what_is_nearest(controllers, expected) -> None:
    assert plan(controllers) == expected


def test_what_holds_tasks_is_said_with_why_it_is_not_more() -> None:
    assert limits.sentence(plan(ALL), 2, "unused") == (
        "Control groups (v2) hold tasks to their memory, cpu and processes. " + limits.UNLIMITED
    )
    assert limits.sentence(plan({"memory"}), 1, "none for pids.") == (
        "Control groups (v1) hold tasks to their memory. Of a task are measured processes, and "
        "one that takes more is ended, up to 0.5 s late: none for pids. Nothing holds a task to "
        "its cpu but the threads that libraries start. " + limits.UNLIMITED
    )
    assert limits.sentence(WATCHED, 0, "no groups.").startswith(
        "Of a task are measured memory and processes, and one that takes more is ended, up to "
        "0.5 s late: no groups."
    )


def test_who_is_measured_has_a_bound_on_all_that_its_user_runs() -> None:
    held = limits.rlimits(Limits(processes=200, files=64), plan(ALL), others=300)
    assert held == {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: 64}
    watched = limits.rlimits(Limits(processes=200), WATCHED, others=300)
    assert watched[resource.RLIMIT_NPROC] == 700


@pytest.mark.parametrize(
    ("measured", "may", "by", "said"),
    [
        (Measured(64 * MIB, 3), Limits(memory=64 * MIB), WATCHED, None),
        (Measured(65 * MIB, 3), Limits(memory=64 * MIB), WATCHED, "65 of 64 MiB"),
        (Measured(65 * MIB, 3), Limits(memory=64 * MIB), plan(ALL), None),
        (Measured(9**12, 3), Limits(), WATCHED, None),
        (Measured(0, 201), Limits(processes=200), WATCHED, "201 processes and threads"),
        (Measured(0, 201), Limits(processes=200), plan({"pids"}), None),
    ],
)
def test_who_takes_more_is_told_the_arithmetic(measured, may, by, said) -> None:
    told = excess(measured, may, by)
    assert told is None if said is None else told is not None and said in told


def test_a_task_is_measured_the_sooner_the_nearer_it_is_to_its_limit() -> None:
    pauses = [pause(used, 1 << 30) for used in (0, 512 * MIB, 1000 * MIB, 2 << 30)]
    assert pauses == sorted(pauses, reverse=True)
    assert pauses[0] == 0.25
    assert pauses[-1] == limits.SOONEST
    assert pause(1 << 40, None) == limits.LATEST


# Control groups.

MOUNTS_1 = """\
24 1 0:22 / / rw - ext4 /dev/vda rw
30 24 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
31 24 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 24 0:28 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
33 24 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
OWN_1 = "4:name=systemd:/a\n3:memory:/user/one\n2:cpu,cpuacct:/\n0::/\n"


def test_the_own_group_is_found_in_each_hierarchy_of_v1_and_in_that_of_v2() -> None:
    found = {(one.version, one.controllers): str(one.group) for one in hierarchies(MOUNTS_1, OWN_1)}
    assert found == {
        (1, frozenset({"cpu", "cpuacct"})): "/sys/fs/cgroup/cpu",
        (1, frozenset({"memory"})): "/sys/fs/cgroup/memory/user/one",
        (1, frozenset({"name=systemd"})): "/sys/fs/cgroup/systemd/a",
        (2, frozenset()): "/sys/fs/cgroup/unified",
    }


def test_a_mount_may_show_a_part_of_the_tree_alone() -> None:
    mounts = "31 24 0:27 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    [found] = hierarchies(mounts, "0::/docker/ab/node\n")
    assert found.group == Path("/sys/fs/cgroup/node")


def test_limits_as_either_version_has_them() -> None:
    may = Limits(memory=64 * MIB, cpu=1.5, processes=200)
    assert settings(1, may) == [
        ("pids", "pids.max", "200"),
        ("memory", "memory.limit_in_bytes", str(64 * MIB)),
        ("memory", "memory.memsw.limit_in_bytes", str(64 * MIB)),
        ("cpu", "cpu.cfs_period_us", "100000"),
        ("cpu", "cpu.cfs_quota_us", "150000"),
    ]
    assert settings(2, may) == [
        ("pids", "pids.max", "200"),
        ("memory", "memory.max", str(64 * MIB)),
        ("memory", "memory.swap.max", "0"),
        ("cpu", "cpu.max", "150000 100000"),
    ]


def version_2(folder: Path, processes: str = "", offered: str = "cpu memory pids io") -> Hierarchy:
    """A folder with the files of a group of v2 that was delegated."""
    folder.mkdir()
    (folder / "cgroup.controllers").write_text(offered)
    (folder / "cgroup.procs").write_text(processes)
    return Hierarchy(2, frozenset(), folder)


def test_with_v2_the_nodes_own_processes_make_room_for_groups(tmp_path: Path) -> None:
    groups = Groups("n", [version_2(tmp_path / "service", f"{os.getpid()}\n")])
    assert groups.controllers == ALL
    service = tmp_path / "service"
    assert (service / "manta-daemon" / "cgroup.procs").read_text() == str(os.getpid())
    for folder in (service, service / "manta-n"):
        assert (folder / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    group = groups.make("task")
    assert group.memory_events == service / "manta-n" / "task" / "memory.events"
    assert group.entries == [service / "manta-n" / "task" / "cgroup.procs"]


def test_a_daemon_that_is_in_the_group_that_it_made_finds_the_one_above(tmp_path: Path) -> None:
    version_2(tmp_path / "service")
    daemon = version_2(tmp_path / "service" / "manta-daemon", f"{os.getpid()}\n")
    assert Groups("n", [daemon]).controllers == ALL
    assert (tmp_path / "service" / "manta-n").is_dir()


def test_with_v2_a_group_that_others_share_is_left_alone_and_that_is_said(tmp_path: Path) -> None:
    groups = Groups("n", [version_2(tmp_path / "session", f"{os.getpid()}\n1\n")])
    assert groups.controllers == frozenset()
    assert "process 1, which is not the node's, is in it" in groups.why_not
    assert "Delegate=yes" in groups.why_not
    assert not (tmp_path / "session" / "manta-daemon").exists()


def test_what_v2_does_not_offer_is_not_used(tmp_path: Path) -> None:
    groups = Groups("n", [version_2(tmp_path / "service", offered="memory")])
    assert groups.controllers == {"memory"}


def test_without_any_hierarchy_a_task_has_a_group_that_does_nothing() -> None:
    groups = Groups("n", [])
    assert groups.controllers == frozenset()
    group = groups.make("task")
    group.limit(Limits(memory=1))
    assert group.entries == []
    assert (group.peak(), group.memory_kills(), group.pids()) == (None, 0, set())
    assert group.end()


@pytest.mark.parametrize(
    ("version", "name", "text"),
    [
        (1, "memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        (2, "memory.events", "low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n"),
    ],
)
def test_kills_for_memory_are_counted(version: int, name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert Group(version, {"memory": tmp_path}).memory_kills() == 2


# Landlock.


@pytest.mark.parametrize(
    ("abi", "words"),
    [
        (1, (0x1FFF,)),
        (2, (0x3FFF,)),
        (3, (0x7FFF,)),
        (4, (0x7FFF, 3)),
        (5, (0xFFFF, 3)),
        (6, (0xFFFF, 3, 3)),
        (7, (0xFFFF, 3, 3)),
        (9, (0xFFFF, 3, 3)),
    ],
)
def test_each_abi_is_asked_for_what_it_knows(abi: int, words: tuple[int, ...]) -> None:
    given = landlock.attributes(abi)
    assert struct.unpack(f"={len(given) // 8}Q", given) == words


def test_what_an_older_kernel_leaves_open_is_said() -> None:
    assert landlock.gaps(landlock.LATEST) == ()
    assert landlock.gaps(5) == (
        "abstract Unix sockets and signals reach what the user runs outside",
    )
    assert len(landlock.gaps(2)) == 4


def test_rights_that_no_abi_has_are_given_to_nobody() -> None:
    given = landlock.OWN | landlock.DEVICE
    assert given & (Access.MAKE_CHAR | Access.MAKE_BLOCK) == 0
    assert landlock.handled(landlock.LATEST) & given == given


@pytest.mark.parametrize(
    ("path", "access", "is_exposing"),
    [
        ("/home/me", READ, True),
        ("/home/me/.manta", READ, True),
        ("/", READ, True),
        ("/home/me/.manta/state/node/modules/ab", READ, False),
        ("/home/me/.mantas", READ, False),
        ("/home/you", READ, False),
        ("/home", LIST, False),
    ],
)
def test_a_rule_above_what_is_hidden_is_found(path: str, access: Access, is_exposing: bool) -> None:
    rule = Rule(path, access)
    assert (exposing([rule], ["/home/me/.manta"]) is rule) is is_exposing
