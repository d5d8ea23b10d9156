"""Collectives over planes with real links and bulk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import numpy as np

from tests.support.plane_collectives import Members
from tests.support.planes import MEMORY, planes

Gathered = Callable[..., AbstractContextManager[Members]]


@contextmanager
def members(on: Sequence[int], most: int = MEMORY) -> Iterator[Members]:
    with planes(max(on) + 1, most) as them:
        found = Members(them, on)
        try:
            yield found
        finally:
            found.close()


def test_a_large_array_is_reduced_over_two_planes() -> None:
    with members([0, 1]) as them:
        data = [np.random.default_rng(rank).random(500_000, np.float32) for rank in range(2)]
        got = them.run(lambda world: world.all_reduce(data[world.rank]))
        for outcome in got:
            assert outcome.dtype == np.float32
            np.testing.assert_array_equal(outcome, data[0] + data[1])
