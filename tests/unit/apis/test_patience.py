from __future__ import annotations

from manta.apis.connect.patience import SLACK, Patience


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def test_waits_are_counted_until_there_is_no_patience_left() -> None:
    clock = Clock()
    patience = Patience(60, clock)
    for seconds, left in ((10.0, 50.0), (30.0 + SLACK, 19.0), (0.5, 18.5)):
        clock.time += seconds
        assert not patience.stood_still(30)
        assert patience.left == left


def test_a_wait_that_ends_long_after_its_limit_is_not_counted_however_often() -> None:
    clock = Clock()
    patience = Patience(60, clock)
    for _ in range(3):
        clock.time += 3600
        assert patience.stood_still(30)
    assert patience.left == 60
    clock.time += 5
    assert not patience.stood_still(30)
    assert patience.left == 55
