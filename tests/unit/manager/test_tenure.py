from __future__ import annotations

from manta.manager.gateway.tenure import Tenure, contested, held, over
from manta.protocol.node import Daemon

FIRST = Daemon("a1", "here", "host-a", 11)
AGAIN = Daemon("a2", "here", "host-a", 12)
OTHER = Daemon("b1", "there", "host-b", 21)


def test_a_daemon_goes_on_over_another_connection() -> None:
    tenure = Tenure()
    assert tenure.is_free(FIRST, lost=False)
    assert tenure.begin(FIRST) is None
    assert tenure.is_free(FIRST, lost=False)
    assert tenure.begin(FIRST) is None
    assert not tenure.is_over(FIRST)


def test_the_next_in_its_place_takes_over_and_it_is_over_for_good() -> None:
    tenure = Tenure(FIRST)
    assert tenure.is_free(AGAIN, lost=False)
    assert tenure.begin(AGAIN) == FIRST
    assert tenure.is_over(FIRST)
    assert not tenure.is_over(AGAIN)


def test_one_of_another_place_waits_until_the_holder_is_gone() -> None:
    tenure = Tenure(FIRST)
    assert not tenure.is_free(OTHER, lost=False)
    assert tenure.contend(OTHER)
    assert not tenure.contend(OTHER)
    assert tenure.is_free(OTHER, lost=True)
    tenure.left = True
    assert tenure.is_free(OTHER, lost=False)
    assert tenure.begin(OTHER) == FIRST
    assert not tenure.left
    assert not tenure.is_free(AGAIN, lost=False)
    assert tenure.is_over(FIRST)


def test_each_is_told_of_the_other() -> None:
    assert "process 11 on host-a" in held(FIRST)
    assert "process 21 on host-b" in over(OTHER)
    assert "process 21 on host-b" in contested(OTHER)
