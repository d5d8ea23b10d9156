"""Large values of tasks, and copies of those of other nodes: whose room they take, and how much."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manta.node.plane.copies import Copy, Fetched, Place, Stalled, ValueGone, ValueLost
from manta.node.plane.parcels import SEALS, Own, Parcels
from manta.node.plane.spool import Timeline
from manta.node.plane.value_room import NoRoom
from manta.transports.exchange.kept import Item, Kept, KeptLetter
from manta.transports.exchange.letters import Remote
from manta.transports.exchange.messages import Parcel

MIB = 1 << 20
MOST = 64 * MIB


class Carrier:
    """What was asked of it, by remote."""

    def __init__(self) -> None:
        self.calls: dict[Remote, tuple[Place, Fetched]] = {}
        self.are_asked: dict[Remote, bool] = {}
        self.begun: list[Remote] = []

    def fetch(
        self, swarm_id: str, remote: Remote, place: Place, done: Fetched, *, is_asked: bool
    ) -> None:
        self.begun.append(remote)
        self.calls[remote] = place, done
        self.are_asked[remote] = is_asked

    def asked(self, remote: Remote, is_asked: bool) -> None:
        self.are_asked[remote] = is_asked

    def give_up(self, remote: Remote) -> None:
        pass

    def state(self, remote: Remote) -> str:
        return ""

    def comes(self, remote: Remote) -> None:
        place, done = self.calls.pop(remote)
        file = place(-1)
        assert file is not None
        file.write(memoryview(b"value"), 0)
        done(None)

    def fails(self, remote: Remote, error: Exception) -> None:
        self.calls.pop(remote)[1](error)


class Spool:
    """Whose writer is at once done with everything."""

    def __init__(self, folder: Path) -> None:
        self.values = folder
        self.untaken: dict[Timeline, list[Kept]] = {}

    def do(self, write: Callable[[], None], then: Callable[[], object] | None = None) -> None:
        write()
        if then is not None:
            then()

    def drop(self, timeline: Timeline) -> None:
        self.untaken.pop(timeline, None)


class Transfer:
    def __init__(self) -> None:
        self.why = ""

    def cancel(self, why: str) -> None:
        self.why = why


class Lab:
    def __init__(self, folder: Path) -> None:
        self.carrier = Carrier()
        self.spool: Any = Spool(folder)

    def parcels(self, most: int = MOST, disk: int = 2 * MOST, most_open: int = 1000) -> Parcels:
        return Parcels(self.carrier, most, self.spool, disk, most_open)

    def kept(self, timeline: Timeline, *sizes: int) -> None:
        """On disk, since before the plane began."""
        items: list[Item] = []
        for size in sizes:
            id_ = os.urandom(16)
            with (self.spool.values / id_.hex()).open("wb") as file:
                file.truncate(size)
            items.append(KeptLetter("id-2", "x", len(items), Parcel(id_, size)))
        self.spool.untaken[timeline] = [Kept(0, "t", 0, 0, tuple(items))]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def sealed(size: int) -> int:
    fd = os.memfd_create("value", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, size)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def hand_in(parcels: Parcels, size: int, swarm_id: str = "s") -> Parcel:
    """Raises NoRoom."""
    taken: list[Parcel | None] = []
    parcels.take_in(swarm_id, sealed(size), size, lambda parcel, why: taken.append(parcel))
    (parcel,) = taken
    assert parcel is not None
    return parcel


def fill(parcels: Parcels, size: int) -> None:
    """Raises NoRoom."""
    for _ in range(100):
        hand_in(parcels, size)


def told(size: int, peer: str = "id-2") -> Remote:
    return Remote(peer, Parcel(os.urandom(16), size))


def found(parcels: Parcels, value: Parcel) -> Own:
    own = parcels.own(value.id)
    assert own is not None
    return own


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class Waiter:
    """Of a task that asks for a value."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.errors: list[Exception | None] = []

    def __call__(self, fd: int, error: Exception | None) -> None:
        self.fds.append(fd)
        self.errors.append(error)


# --- what a peer tells of -----------------------------------------------------------------------


def test_a_value_that_nobody_asked_for_takes_little_memory_and_no_disk(lab: Lab) -> None:
    parcels = lab.parcels()
    for size in (16 << 30, 2**53 - 1, MOST, MOST // 4 + 1):
        parcels.want("s", told(size))
    assert not lab.carrier.begun
    for _ in range(100):
        parcels.want("s", told(MOST // 8))
    assert parcels.memory.used == MOST // 4
    for peer in range(100):
        parcels.want("s", told(MOST // 8, f"other-{peer}"))
    assert parcels.memory.used == MOST // 2
    hand_in(parcels, MOST // 4, "another")
    parcels.close()
    assert parcels.memory.used == 0


def test_few_values_are_fetched_that_nobody_asked_for(lab: Lab) -> None:
    parcels = lab.parcels(most_open=160)  # 40 of them copies
    for _ in range(100):
        parcels.want("s", told(100))
    assert len(lab.carrier.begun) == 10
    for peer in range(100):
        parcels.want("s", told(100, f"other-{peer}"))
    assert len(lab.carrier.begun) == 20
    for _ in range(10):
        parcels.want("s", told(100), waiter := Waiter())
        assert not waiter.errors
    parcels.close()


def test_what_came_ahead_leaves_room_for_more_once_it_was_asked_for_or_is_gone(lab: Lab) -> None:
    parcels = lab.parcels()
    first, second, third = (told(MOST // 4) for _ in range(3))
    parcels.want("s", first)
    parcels.want("s", second)
    assert lab.carrier.begun == [first]
    parcels.want("s", first, waiter := Waiter())
    assert lab.carrier.are_asked[first]
    parcels.want("s", second)
    lab.carrier.fails(second, Stalled("nothing came"))
    parcels.want("s", third)
    assert lab.carrier.begun == [first, second, third]
    lab.carrier.comes(first)
    assert os.pread(waiter.fds[0], 5, 0) == b"value"
    parcels.close()


def test_a_value_too_large_for_the_node_is_refused_to_who_asks_for_it_with_the_arithmetic(
    lab: Lab,
) -> None:
    parcels = lab.parcels()
    parcels.want("s", told(16 << 30), waiter := Waiter())
    assert isinstance(waiter.errors[0], NoRoom)
    assert "16,384.0 MiB does not fit" in str(waiter.errors[0])
    assert parcels.memory.used == 0
    hand_in(parcels, MOST // 2)
    parcels.close()


def test_of_what_stalled_as_a_task_asked_for_it_another_fetch_begins(lab: Lab) -> None:
    parcels = lab.parcels()
    value = told(MIB)
    parcels.want("s", value)
    parcels.want("s", value, waiter := Waiter())
    lab.carrier.fails(value, Stalled("nothing came"))
    assert not waiter.errors
    assert lab.carrier.are_asked[value]
    lab.carrier.comes(value)
    assert waiter.errors == [None]
    parcels.close()


def test_what_no_task_waits_for_any_more_is_not_asked_for_by_one(lab: Lab) -> None:
    parcels = lab.parcels()
    value = told(MIB)
    one, other = Waiter(), Waiter()
    for waiter in (one, other):
        parcels.want("s", value, waiter)
    parcels.forgo(value, one)
    assert lab.carrier.are_asked[value]
    parcels.forgo(value, other)
    assert not lab.carrier.are_asked[value]
    parcels.forgo(value, other)
    lab.carrier.comes(value)
    assert one.fds == other.fds == []
    parcels.want("s", value, one)
    assert one.errors == [None]
    parcels.close()


def test_a_value_that_breaks_off_is_written_anew(lab: Lab) -> None:
    parcels = lab.parcels()
    value = told(MIB)
    parcels.want("s", value, waiter := Waiter())
    before = descriptors()
    place = lab.carrier.calls[value][0]
    for _ in range(10):
        file = place(-1)
        assert file is not None
        del file
    assert descriptors() <= before + 2
    lab.carrier.comes(value)
    assert os.pread(waiter.fds[0], 5, 0) == b"value"
    parcels.close()


def test_a_value_that_the_system_cannot_protect_is_refused_to_all_who_wait(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(self: Copy) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(Copy, "seal", unknown)
    parcels = lab.parcels()
    value = told(MIB)
    waiters = [Waiter(), Waiter()]
    for waiter in waiters:
        parcels.want("s", value, waiter)
    lab.carrier.comes(value)
    for waiter in waiters:
        assert isinstance(waiter.errors[0], ValueLost)
        assert "Linux 5.1" in str(waiter.errors[0])
    assert parcels.memory.used == 0
    parcels.close()


def test_a_file_that_cannot_be_opened_again_closes_no_descriptor_of_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcels = lab.parcels(most=0)
    value = told(MIB)
    parcels.want("s", value, waiter := Waiter())
    taken: list[int] = []

    def read_only(fd: int) -> int:
        os.close(fd)
        taken.append(os.open("/dev/null", os.O_RDONLY))  # which has its number now
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr("manta.node.plane.value_files.read_only", read_only)
    lab.carrier.comes(value)
    assert isinstance(waiter.errors[0], ValueLost)
    os.fstat(taken[0])
    os.close(taken[0])
    parcels.close()


def test_what_tasks_were_given_gives_way_to_what_others_want(lab: Lab) -> None:
    """In memory, and on disk, and among what may be open: it can be had again from its holder."""
    parcels = lab.parcels(most=8 * MIB, disk=16 * MIB, most_open=16)
    values = [told(MIB) for _ in range(100)]
    for value in values:
        waiter = Waiter()
        parcels.want("s", value, waiter)
        lab.carrier.comes(value)
        assert waiter.errors == [None]
    waiter = Waiter()
    assert parcels.memory.used <= 7 * MIB
    parcels.want("s", values[-1], waiter)
    assert len(waiter.errors) == 1
    parcels.want("s", values[0], waiter)
    assert lab.carrier.begun.count(values[0]) == 2
    lab.carrier.comes(values[0])
    assert waiter.errors == [None] * 2
    hand_in(parcels, 6 * MIB)
    parcels.close()


def given(parcels: Parcels, lab: Lab, count: int, size: int, swarm_id: str) -> list[Remote]:
    """Copies that a task was given, and that can be had again."""
    values = [told(size) for _ in range(count)]
    for value in values:
        parcels.want(swarm_id, value, Waiter())
        lab.carrier.comes(value)
    return values


def fetched_anew(parcels: Parcels, lab: Lab, values: list[Remote], swarm_id: str) -> int:
    """How many of them are here no more."""
    before = len(lab.carrier.begun)
    for value in values:
        parcels.want(swarm_id, value, Waiter())
    return len(lab.carrier.begun) - before


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_copies_of_others_stay_where_it_would_not_help_that_they_go(lab: Lab, where: str) -> None:
    parcels = lab.parcels(most=32 * MIB if where == "memory" else 0, disk=32 * MIB)
    others = given(parcels, lab, 2, MIB, "other")
    parcels.want("s", told(12 * MIB), waiter := Waiter())
    parcels.disk.most = 32 * MIB if where == "disk" else 1
    parcels.want("s", told(20 * MIB), refused := Waiter())
    assert not waiter.errors
    assert "12.0 MiB of them for this swarm, which may have 26.2 MiB" in str(refused.errors[0])
    assert fetched_anew(parcels, lab, others, "other") == 0
    parcels.close()


def test_copies_of_others_stay_open_where_it_would_not_help_that_they_go(lab: Lab) -> None:
    parcels = lab.parcels(most_open=36)  # 9 of them copies, of which one swarm may have 7
    others = given(parcels, lab, 1, MIB, "other")
    for _ in range(7):
        parcels.want("s", told(MIB), waiter := Waiter())
        assert not waiter.errors
    parcels.want("s", told(MIB), refused := Waiter())
    assert "7 of them for this swarm, which may have 7 beside" in str(refused.errors[0])
    assert fetched_anew(parcels, lab, others, "other") == 0
    parcels.close()


def test_a_swarm_s_own_copies_go_before_those_of_others(lab: Lab) -> None:
    parcels = lab.parcels(most=0, disk=32 * MIB)
    others, own = (given(parcels, lab, 4, 2 * MIB, swarm_id) for swarm_id in ("other", "s"))
    waiter = Waiter()
    parcels.want("s", told(20 * MIB), waiter)
    assert not waiter.errors
    assert fetched_anew(parcels, lab, others, "other") == 0
    assert fetched_anew(parcels, lab, own, "s") > 0
    parcels.close()


def test_what_is_waited_for_gives_way_to_nothing(lab: Lab) -> None:
    parcels = lab.parcels(most=0, disk=16 * MIB, most_open=8)
    for _ in range(7):
        parcels.want("s", told(MIB), Waiter())
    parcels.want("s", told(MIB), waiter := Waiter())
    (error,) = waiter.errors
    assert isinstance(error, NoRoom)
    assert "open more files" in str(error)
    parcels.close()


# --- what a task hands in, and who reads it -----------------------------------------------------


def test_one_swarm_leaves_room_for_others_in_memory_and_on_disk(lab: Lab) -> None:
    parcels = lab.parcels()
    with pytest.raises(NoRoom, match=r"112\.0 MiB of them for this swarm, which may have 112\.0"):
        fill(parcels, MOST // 8)
    assert parcels.memory.used == MOST // 8 * 7  # the others are files
    hand_in(parcels, MOST // 16, "another")
    parcels.close()


def test_many_values_take_few_descriptors(lab: Lab) -> None:
    parcels = lab.parcels(most_open=40)
    before = descriptors()
    values = [hand_in(parcels, MIB // 8) for _ in range(100)]
    assert parcels.memory.used == 17 * MIB // 8  # of the others each is a file
    assert descriptors() == before + 17
    hand_in(parcels, MIB // 8, "another")
    assert descriptors() == before + 18
    files = [found(parcels, value) for value in values[17:]]
    for own in files[:8]:  # as many as that are read at a time, whatever is in memory
        own.transfers.add(Transfer())
        assert parcels.opened(own) >= 0
    assert descriptors() == before + 26
    with pytest.raises(NoRoom, match=r"has 8 files of large values open .* of at most 10"):
        parcels.opened(files[8])
    files[0].transfers.clear()
    parcels.unused(files[0])
    assert parcels.opened(files[8]) >= 0
    for own in files[:9]:
        own.transfers.clear()
        parcels.unused(own)
    assert descriptors() == before + 18
    parcels.close()
    assert descriptors() == before


def test_a_file_is_open_while_somebody_reads_it(lab: Lab) -> None:
    parcels = lab.parcels(most=0)
    before = descriptors()
    value = hand_in(parcels, MIB)
    own = found(parcels, value)
    assert own.fd == -1
    transfer = Transfer()
    parcels.opened(own)
    own.transfers.add(transfer)
    parcels.unused(own)
    assert own.fd >= 0
    own.transfers.discard(transfer)
    parcels.unused(own)
    assert own.fd == -1
    assert parcels.held(value.id) == own.fd
    parcels.unused(own)
    assert own.fd >= 0
    os.unlink(own.path)
    parcels.release(value)
    assert own.fd == -1
    assert parcels.held(value.id) is None
    assert descriptors() == before


def test_what_is_refused_takes_nothing(lab: Lab) -> None:
    parcels = lab.parcels(disk=MIB, most_open=8)
    for _ in range(20):
        with pytest.raises(NoRoom, match="does not fit"):
            hand_in(parcels, 2 * MIB)
    hand_in(parcels, MIB // 2)
    parcels.close()


def test_a_value_takes_its_room_until_nobody_reads_it(lab: Lab) -> None:
    parcels = lab.parcels()
    parcel = hand_in(parcels, MIB)
    own = found(parcels, parcel)
    transfers = [Transfer(), Transfer()]
    before = descriptors()
    for transfer in transfers:
        assert len(own.mapped().view) == MIB
        own.transfers.add(transfer)
    assert descriptors() <= before + 1
    parcels.release(parcel)
    assert parcels.own(parcel.id) is None
    assert all(str(ValueGone()) == transfer.why for transfer in transfers)
    for transfer in transfers:
        assert parcels.memory.used == MIB
        own.transfers.discard(transfer)
        parcels.unused(own)
    assert parcels.memory.used == 0
    assert descriptors() <= before - 1


# --- what was kept before -----------------------------------------------------------------------


def test_what_was_kept_of_others_is_dropped_only_as_far_as_that_is_enough(lab: Lab) -> None:
    old = [Timeline(f"swarm-{number}", "e") for number in range(3)]
    for timeline in old:
        lab.kept(timeline, MIB)
    parcels = lab.parcels(disk=4 * MIB)
    with pytest.raises(NoRoom):
        hand_in(parcels, 16 * MIB)
    parcels.want("s", told(16 << 30), waiter := Waiter())
    assert isinstance(waiter.errors[0], NoRoom)
    assert list(lab.spool.untaken) == old
    hand_in(parcels, MIB)
    assert list(lab.spool.untaken) == old[1:]
    parcels.close()


def test_what_was_kept_is_not_open_until_it_is_asked_for(lab: Lab) -> None:
    lab.kept(Timeline("swarm-0", "e"), *[MIB] * 100)
    before = descriptors()
    parcels = lab.parcels(disk=200 * MIB, most_open=10)
    assert descriptors() == before
    items = lab.spool.untaken[Timeline("swarm-0", "e")][0].items
    assert len(items) == 100
    for item in items:
        own = found(parcels, item.value)
        assert os.fstat(parcels.opened(own)).st_size == MIB
        parcels.unused(own)
    assert descriptors() == before
    parcels.close()


def test_what_is_on_its_way_to_others_is_not_counted_as_room(lab: Lab) -> None:
    timeline = Timeline("swarm-0", "e")
    lab.kept(timeline, 3 * MIB)
    parcels = lab.parcels(disk=4 * MIB)
    (item,) = lab.spool.untaken[timeline][0].items
    own = found(parcels, item.value)
    transfer = Transfer()
    own.transfers.add(transfer)
    with pytest.raises(NoRoom):
        hand_in(parcels, 2 * MIB)
    assert timeline in lab.spool.untaken
    own.transfers.discard(transfer)
    parcels.close()
