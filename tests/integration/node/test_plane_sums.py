"""Values that leave a node in sums of several nodes alone, over planes with real links."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from manta.light.errors import CollectiveError, RequestFailed
from manta.light.world import World
from manta.node.policy.rules import SumLimit
from tests.support.plane_collectives import Members
from tests.support.planes import planes

pytestmark = pytest.mark.timeout(120)

LARGE = np.arange(8192.0)


@contextmanager
def members(on: Sequence[int], limit: SumLimit, limited: Sequence[int] = (0,)) -> Iterator[Members]:
    """Instances on these nodes; the values of some leave in sums alone."""
    with planes(max(on) + 1) as them:
        found = Members(them, on)
        for rank in limited:
            plane = them.nodes[on[rank]]
            plane.run(plane.plane._sums.begin, found.all[rank].at, limit)
        try:
            yield found
        finally:
            found.close()


def stops(them: Members) -> list[str]:
    return [why for node in them.planes.nodes for _, _, why in node.stops]


VALUES: tuple[Any, ...] = (
    1.5, 2, True, np.float32(3), np.int64(4), np.arange(5), LARGE,
    {"loss": 0.5, "rows": 3, "layers": [np.ones((2, 3), "float32"), np.zeros(0)]},
)  # fmt: skip


@pytest.mark.parametrize("op", ["sum", "mean"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_private_sum_is_what_a_sum_is(value: Any, op: str) -> None:
    with members([0, 1, 2], SumLimit(3)) as them:
        got = them.run(lambda world: world.all_reduce(value, op, private=True))
        assert stops(them) == []
    with members([0, 1, 2], SumLimit(3), limited=()) as them:
        if isinstance(value, np.int64) and op == "mean":
            pytest.skip("a mean of integers warns")
        wanted = them.run(lambda world: world.all_reduce(value, op))
    np.testing.assert_equal(got, wanted)
    assert [type(one) for one in got] == [type(one) for one in wanted]


def test_no_other_member_is_given_a_part_of_a_private_sum() -> None:
    """Only the planes are: what tasks are answered with is the outcome."""
    with members([0, 1, 2], SumLimit(3)) as them:
        parts: list[Any] = []
        member = them.all[1]
        asked = member.call

        def call(request: str, /, **fields: Any) -> Any:
            told, got = asked(request, **fields)
            parts.extend(told.get("parts", ()))
            return told, got

        member.call = call  # type: ignore[method-assign]
        assert them.run(lambda world: world.all_reduce(world.rank, private=True)) == [3, 3, 3]
        assert len(parts) == 1


ALONE: dict[str, Callable[[World], Any]] = {
    "a small sum": lambda world: world.all_reduce(1.5),
    "all_gather": lambda world: world.all_gather(LARGE),
    "gather": lambda world: world.gather(1, root=1),
    "scatter": lambda world: world.scatter([1, 2, 3] if not world.rank else None),
    "reduce_scatter": lambda world: world.reduce_scatter([LARGE] * 3),
    "max": lambda world: world.all_reduce(LARGE, "max", private=True),
    "min": lambda world: world.all_reduce(LARGE, "min"),
    "prod": lambda world: world.all_reduce(LARGE, "prod"),
    "goes on": lambda world: world.all_reduce(1, on_peer_lost="continue", private=True),
}


@pytest.mark.parametrize("call", ALONE, ids=str)
def test_what_gives_a_value_to_others_is_an_error_and_is_recorded(call: str) -> None:
    with members([0, 1, 2], SumLimit(3)) as them:
        work = ALONE[call]
        error = them.begin(0, work).exception(30)
        assert isinstance(error, RequestFailed), error
        assert "The owner of this node lets not all leave" in str(error)
        assert len(stops(them)) >= 1


LETTERS: dict[str, dict[str, Any]] = {
    "say_to_all": {"tag": "rows"},
    "send_letter": {"to": "b", "tag": "rows", "timeout": 5.0},
}


@pytest.mark.parametrize("request_", LETTERS)
@pytest.mark.parametrize("size", [10, 100_000])
def test_no_letter_leaves(request_: str, size: int) -> None:
    with members([0, 1], SumLimit(2)) as them:
        with pytest.raises(LookupError, match="and a message gives this one to other tasks"):
            them.all[0].end.call(request_, value=b"x" * size, **LETTERS[request_])
        [(_, told, _)] = them.planes.nodes[0].stops
        assert told == size


def test_numbers_beside_arrays_are_gathered_unless_the_sum_is_private() -> None:
    with members([0, 1], SumLimit(2)) as them:
        got = them.run(lambda world: world.all_reduce({"a": LARGE, "b": 1}, timeout=5))
        assert "call all_reduce(value, private=True)" in str(got[0])
        assert len(stops(them)) == 1


def test_what_brings_no_value_is_as_anybodys() -> None:
    with members([0, 1, 2], SumLimit(3)) as them:
        assert them.run(lambda world: world.barrier()) == [None] * 3
        given = them.run(
            lambda world: world.scatter([4, 5, 6] if world.rank == 1 else None, root=1)
        )
        assert given == [4, 5, 6]
        them.all[1].end.call("say_to_all", tag="x", value=b"seven")
        assert them.all[0].end.call("hear_broadcast", tag="x", timeout=20.0) == b"seven"
        assert stops(them) == []


@pytest.mark.parametrize("on", [[0, 1], [0, 0, 0], [0, 1, 1, 0]], ids=str)
def test_a_sum_is_of_nodes_and_not_of_instances(on: list[int]) -> None:
    """Several instances on one node are one: all of them may have the same data, or none."""
    with members(on, SumLimit(3)) as them:
        got = them.run(lambda world: world.all_reduce(LARGE, private=True))
        assert all(isinstance(one, CollectiveError) for one in got)
        assert f"sums of 3 nodes or more, and all instances of worker are on {len(set(on))}" in str(
            got[0]
        )
        assert len(stops(them)) == 1


def test_a_sum_that_is_begun_anew_on_fewer_nodes_is_not_given_the_value_again() -> None:
    with members([0, 1, 2], SumLimit(3)) as them:
        waits = [
            them.begin(rank, lambda world: world.all_reduce(LARGE, private=True)) for rank in (0, 1)
        ]
        them.again(2, 1, node=1)  # the third is tried again where the second is
        last = them.begin(2, lambda world: world.all_reduce(LARGE, private=True))
        for one in (*waits, last):
            assert "are on 2" in str(one.exception(30))


def test_sizes_and_numbers_of_values_are_limited_in_sums_too() -> None:
    with members([0, 1], SumLimit(2, largest=64, most=1)) as them:
        error = them.begin(0, lambda world: world.all_reduce(LARGE, private=True)).exception(30)
        assert "it has 65,536 bytes, and 64 may leave" in str(error)
    with members([0, 1], SumLimit(2, most=1)) as them:
        assert them.run(lambda world: world.all_reduce(1, private=True)) == [2, 2]
        assert them.planes.nodes[0].sums == [(them.all[0].at, 8)]
        error = them.begin(0, lambda world: world.all_reduce(1, private=True)).exception(30)
        assert "1 values of an instance may leave in an iteration" in str(error)
    with members([0, 1], SumLimit(2, most=3, before=3)) as them:
        error = them.begin(0, lambda world: world.all_reduce(1, private=True)).exception(30)
        assert "3 values of an instance may leave in an iteration" in str(error)


@pytest.mark.parametrize("value", ["text", np.array(["a"]), 2**70, None], ids=repr)
def test_what_no_plane_can_reduce_is_not_private(value: Any) -> None:
    with members([0, 1], SumLimit(2)) as them:
        error = them.begin(0, lambda world: world.all_reduce(value, private=True)).exception(30)
        assert isinstance(error, TypeError)


def test_a_private_sum_names_no_key_to_others() -> None:
    def work(world: World) -> Any:
        return world.all_reduce({"Jane Doe" if world.rank == 0 else "rows": 1.0}, private=True)

    with members([0, 1], SumLimit(2)) as them:
        got = them.run(work)
        assert all("all instances must give values of one form" in str(one) for one in got)
        assert "Jane" not in str(got)


def test_no_call_says_anything_in_its_words() -> None:
    with members([0, 1], SumLimit(2)) as them:
        call = {"number": 0, "kind": "barrier", "timeout": 5.0}
        for said in ({"words": "Jane Doe"}, {"words": "barrier", "forms": [("value", "Jane")]}):
            with pytest.raises(LookupError, match="lets not all leave"):
                them.all[0].end.call("call_collective", **call, **said)
        assert len(stops(them)) == 2
