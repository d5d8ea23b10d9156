"""Whether a manager that ended is started again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.console.exit_codes import Exit
from manta.manager import daemon, respawn
from manta.manager.respawn import Again, Over, Respawn, RespawnLimits, how

LIMITS = RespawnLimits(quick=60.0, most=3, pause=1.0, longest_pause=3.0)
CRASHES = [-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGKILL, -signal.SIGBUS, 1, Exit.INTERNAL]
ON_PURPOSE = [0, Exit.USAGE, Exit.INTERRUPTED, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP]


@pytest.mark.parametrize("code", CRASHES)
def test_one_that_crashes_is_started_again(code):
    assert Respawn(LIMITS).ended(code, 5.0, was_up=True, told=False) == Again(1.0)


@pytest.mark.parametrize("code", ON_PURPOSE)
def test_one_that_ends_on_purpose_is_not(code):
    assert Respawn(LIMITS).ended(code, 5.0, was_up=True, told=False) == Over(gave_up=False)


@pytest.mark.parametrize("code", [*CRASHES, *ON_PURPOSE])
def test_whatever_it_ends_by_once_it_was_told_to_stop_is_on_purpose(code):
    assert Respawn(LIMITS).ended(code, 5.0, was_up=True, told=True) == Over(gave_up=False)


@pytest.mark.parametrize("code", [-signal.SIGABRT, -signal.SIGKILL, 1, Exit.LOCAL])
def test_a_first_start_that_fails_is_told_and_not_repeated(code):
    assert Respawn(LIMITS).ended(code, 0.5, was_up=False, told=False) == Over(gave_up=False)


def test_one_whose_actors_gave_up_had_been_up():
    assert respawn.GAVE_UP == daemon.GAVE_UP
    assert Respawn(LIMITS).ended(daemon.GAVE_UP, 9.0, was_up=False, told=False) == Again(1.0)


def test_a_start_again_that_fails_is_tried_again_with_longer_pauses_until_it_gives_up():
    machine = Respawn(LIMITS)
    assert machine.ended(-signal.SIGABRT, 500.0, was_up=True, told=False) == Again(1.0)
    ends = [machine.ended(Exit.LOCAL, 0.5, was_up=False, told=False) for _ in range(3)]
    assert ends == [Again(2.0), Again(3.0), Over(gave_up=True)]
    assert machine.starts_again == 3


def test_one_that_lived_for_long_begins_anew():
    machine = Respawn(LIMITS)
    for _ in range(100):
        assert machine.ended(-signal.SIGABRT, 61.0, was_up=True, told=False) == Again(1.0)
    assert machine.starts_again == 100


@given(st.lists(st.tuples(st.sampled_from(CRASHES), st.floats(0, 120)), max_size=60))
def test_pauses_are_bounded_and_it_gives_up_only_after_quick_ends_in_a_row(ends):
    machine, quick = Respawn(LIMITS), 0
    for code, lived in ends:
        quick = quick + 1 if lived < LIMITS.quick else 1
        action = machine.ended(code, lived, was_up=True, told=False)
        if isinstance(action, Over):
            assert action.gave_up
            assert quick == LIMITS.most + 1
            return
        assert quick <= LIMITS.most
        assert LIMITS.pause <= action.pause <= LIMITS.longest_pause


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-signal.SIGABRT, "was ended by SIGABRT"),
        (-signal.SIGKILL, "was ended by SIGKILL"),
        (-200, "was ended by signal 200"),
        (70, "ended with exit code 70"),
    ],
)
def test_how_it_ended_is_said_in_words(code, words):
    assert how(code) == words


def test_the_page_says_when_it_gives_up():
    page = (Path(__file__).parents[3] / "docs" / "manager.md").read_text()
    limits = RespawnLimits()
    assert f"after {limits.pause:g} s and later after up to {limits.longest_pause:g} s" in page
    assert f"After {limits.most + 1} ends in a row" in page
    assert f"StartLimitBurst={limits.most + 1}" in page
    assert limits.quick == 60.0  # "within a minute"
