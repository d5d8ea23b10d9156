"""Where a container sees what it is given, and whose signal ended it."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.runners.container import ending_signal
from manta.node.runners.paths import dataset_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("digits", "digits.csv"),
        ("digits.csv", "digits.csv"),
        ("a/b", "a%2Fb.csv"),
        ("..", "%2E..csv"),
        ("a b,readonly", "a b%2Creadonly.csv"),
    ],
)
def test_a_dataset_lies_at_a_place_of_its_own(tmp_path: Path, name: str, path: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1")
    assert dataset_path(name, file) == f"/manta/datasets/{path}"


@pytest.mark.parametrize(
    ("code", "sent", "ended_by"),
    [
        (-9, {9}, 9),
        (-9, {15, 9}, 9),
        (-9, set(), None),  # by itself, or by the kernel
        (-15, {15}, 15),
        (1, {15}, 15),  # handled
        (-3, {3}, 3),
        (1, {1}, None),  # outlived
        (3, {10}, None),
        (255, {9999}, None),
    ],
)
def test_a_signal_that_a_container_was_sent_ended_it(
    code: int, sent: set[int], ended_by: int | None
) -> None:
    assert ending_signal(code, sent) == ended_by
