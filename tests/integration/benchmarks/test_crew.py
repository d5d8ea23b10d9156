"""Processes that the report on the data plane measures together."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.data_plane.bench import PROGRAMS
from tests.benchmarks.data_plane.crew import ProcessCrew
from tests.benchmarks.data_plane.figures import CURVE, TCP
from tests.benchmarks.data_plane.members.control import Job
from tests.benchmarks.data_plane.turns import NotMeasured

MEMBER = """
import sys
from tests.benchmarks.data_plane.members.control import Member, serve

class Odd(Member):
    def all_reduce(self):
        self.outcome = self.given
        if self.job.times == 1:  # as if the ends had been added, and nothing else
            self.given[[0, -1]] = 3

    def broadcast(self):
        if self.rank:
            raise OSError("the line is cut")

    def sleep(self):
        sys.exit("it sleeps no more")

serve(sys.argv[1], Odd(int(sys.argv[2]), 2))
"""


def odd() -> ProcessCrew:
    return ProcessCrew([sys.executable, "-c", MEMBER, "{address}", "{rank}"], 2)


@pytest.mark.parametrize("program", [TCP, CURVE])
def test_bytes_and_round_trips_are_measured(program: str) -> None:
    with ProcessCrew(PROGRAMS[program].command, 2) as crew:
        (seconds,) = crew.measure(Job("stream", 3_000_000, 2))
        trips = crew.measure(Job("trip", 64, 5))
        again = crew.measure(Job("stream", 4096))
    assert seconds > 0
    assert len(trips) == 5
    assert len(again) == 1


def test_members_that_end_with_different_values_are_not_measured() -> None:
    with odd() as crew, pytest.raises(NotMeasured, match="different values"):
        crew.measure(Job("all_reduce", 4096))


def test_members_that_add_nothing_up_are_not_measured() -> None:
    with odd() as crew, pytest.raises(NotMeasured, match="the sum at the ends is not 3"):
        crew.measure(Job("all_reduce", 4096, 2))


def test_what_a_member_raises_is_told() -> None:
    with odd() as crew, pytest.raises(NotMeasured, match="OSError: the line is cut"):
        crew.measure(Job("broadcast", 4096))


def test_a_member_that_ends_is_told_by_its_last_line() -> None:
    with odd() as crew, pytest.raises(NotMeasured, match="it sleeps no more"):
        crew.measure(Job("sleep", 4096))


def test_a_program_that_does_not_start_is_told_by_its_last_line() -> None:
    with pytest.raises(NotMeasured, match="No module named 'absent'"):
        ProcessCrew([sys.executable, "-c", "import absent", "{rank}"], 2)
