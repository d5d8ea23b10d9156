"""What a node makes of the messages about a roster is the roster, however they are cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from manta.protocol.pages import encoded
from manta.protocol.roster import NONE, Former, Roster, RosterInstance, RosterTask, RosterTold
from manta.protocol.spec import NetworkSpec
from manta.roster.differences import apply, told

STATES = ("PLACED", "RUNNING", "FINISHED", "FAILED")
RING = NetworkSpec("ring", "ring")

instances = st.builds(
    lambda node, attempt, state, why, places: (
        f"n{node}",
        f"node-{node}",
        attempt,
        state,
        why,
        places,
    ),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from(STATES),
    st.sampled_from(["", "it was lost"]),
    st.integers(0, 3),
)


formers = st.dictionaries(
    st.sampled_from("abc"),
    st.dictionaries(st.integers(0, 200), st.integers(NONE, 3), min_size=1),
)


@st.composite
def histories(draw: st.DrawFn) -> list[Roster]:
    """Rosters as they follow each other: instances only come, iterations begin."""
    aliases = draw(st.lists(st.sampled_from("abc"), min_size=1, max_size=3, unique=True))
    rosters: list[Roster] = []
    tasks: dict[str, RosterTask] = {}
    iteration, epoch, former = 0, "", Former()
    for _ in range(draw(st.integers(1, 5))):
        if not tasks or draw(st.integers(0, 4)) == 0:
            iteration += bool(tasks)
            former = draw(formers)
            epoch = draw(st.sampled_from([epoch, "restored"]))
            tasks = {alias: RosterTask(alias, "WAITING", 3, network="ring") for alias in aliases}
        alias = draw(st.sampled_from(aliases))
        task = tasks[alias]
        kept = [
            draw(instances) if draw(st.booleans()) else one for one in map(_rest, task.instances)
        ]
        kept += draw(st.lists(instances, max_size=4))
        phase = draw(st.sampled_from(["PLACING", "RUNNING", "DONE"]))
        new = tuple(RosterInstance(rank, *one) for rank, one in enumerate(kept))
        tasks = {**tasks, alias: replace(task, phase=phase, instances=new)}
        rosters.append(Roster(epoch, iteration, tasks, {"ring": RING}, former))
    return rosters


def _rest(one: RosterInstance) -> tuple:
    return msgspec.structs.astuple(one)[1:]


def sent(parts: list[RosterTold]) -> list[RosterTold]:
    decode = msgspec.msgpack.Decoder(RosterTold).decode
    return [decode(msgspec.msgpack.encode(part)) for part in parts]


@given(histories(), st.sampled_from([1, 60, 200, 100_000]))
def test_what_is_told_makes_each_roster_of_the_one_before(history: list[Roster], page: int) -> None:
    held: Roster | None = None
    for version, roster in enumerate(history, 1):
        before = history[version - 2] if version > 1 else None
        parts = sent(told("s", roster, version, before, version - 1, page))
        assert [part.part for part in parts] == list(range(len(parts)))
        assert [part.more for part in parts] == [True] * (len(parts) - 1) + [False]
        held = apply(parts, held)
        assert held == roster
        assert list(held.tasks) == list(roster.tasks)
        assert apply(sent(told("s", roster, version, page_bytes=page)), None) == roster


def test_of_what_stays_as_it_is_nothing_is_told_again() -> None:
    many = tuple(RosterInstance(rank, "n1", "node-1", 0, "PLACED") for rank in range(1000))
    task = RosterTask("a", "RUNNING", 1000, instances=many)
    before = Roster("", 0, {"a": task, "b": RosterTask("b", "WAITING", 0)}, {})
    begun = (*many[:7], replace(many[7], state="RUNNING"), *many[8:])
    after = replace(before, tasks={**before.tasks, "a": replace(task, instances=begun)})
    [part] = told("s", after, 2, before, 1)
    [changed] = part.tasks
    assert changed.instances == (begun[7],)
    assert part.networks == ()
    assert encoded(part) < 200


def test_a_part_is_no_larger_than_a_page() -> None:
    many = tuple(RosterInstance(rank, "n" * 16, "node-1", 0, "PLACED") for rank in range(1000))
    former = {"b": dict.fromkeys(range(100_000, 101_000), 9)}
    roster = Roster("", 0, {"a": RosterTask("a", "RUNNING", 1000, instances=many)}, {}, former)
    parts = told("s", roster, 1, page_bytes=2000)
    assert len(parts) > 10
    assert all(encoded(part) < 2200 for part in parts)


def test_a_gap_is_no_roster() -> None:
    task = RosterTask("a", "RUNNING", 2, instances=(RosterInstance(1, "n", "n", 0, "PLACED"),))
    [part] = told("s", Roster("", 0, {"a": task}, {}), 1)
    with pytest.raises(ValueError, match="lacks instances"):
        apply([part], None)
