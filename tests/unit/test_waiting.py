"""Waiting in tests."""

from __future__ import annotations

import pytest

from manta.testing import wait_until


def test_the_first_value_that_is_true_is_returned() -> None:
    values = iter([0, "", None, 7, 8])
    assert wait_until(lambda: next(values)) == 7


def test_in_vain_it_says_what_was_waited_for_and_what_was_there() -> None:
    found = [1, 2]
    with pytest.raises(TimeoutError) as told:
        wait_until(lambda: found[2:], timeout=0.01, what=lambda: f"there are {found}")
    said = str(told.value)
    assert said.startswith("not within 0.01 s: ")
    assert "lambda: found[2:]" in said
    assert said.endswith(", which was []: there are [1, 2]")


def test_a_condition_without_source_is_named() -> None:
    with pytest.raises(TimeoutError, match=r"__len__.*, which was 0"):
        wait_until([].__len__, timeout=0.0)
