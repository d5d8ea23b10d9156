"""Levels of isolation: which is stronger, and at which a module runs."""

from __future__ import annotations

import pytest

from manta.protocol.isolation import LEVELS, level_of, rank


def test_levels_are_in_order_and_words_of_before_have_their_place() -> None:
    assert [rank(level) for level in LEVELS] == [0, 1, 2, 3, 4]
    assert rank("process") == rank("none") == rank("limits")
    assert rank("container") == rank("docker")
    assert rank("nonsense") < rank("limits")


@pytest.mark.parametrize(
    ("runners", "without", "with_image"),
    [
        (("docker", "bwrap"), "bwrap", "docker"),
        (("bwrap",), "bwrap", "bwrap"),
        (("docker",), "docker", "docker"),
        (("docker", "process"), "limits", "docker"),
        ((), "", ""),
    ],
)
def test_a_module_runs_at_a_level_by_whether_it_names_an_image(
    runners: tuple[str, ...], without: str, with_image: str
) -> None:
    assert level_of(runners, image=False) == without
    assert level_of(runners, image=True) == with_image
