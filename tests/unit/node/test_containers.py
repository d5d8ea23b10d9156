"""Where a container sees what it is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.runners.docker import dataset_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("digits", "digits.csv"),
        ("digits.csv", "digits.csv"),
        ("a/b", "a%2Fb.csv"),
        ("..", "%2E%2E.csv"),
        ("a b,readonly", "a%20b%2Creadonly.csv"),
    ],
)
def test_a_dataset_lies_at_a_place_of_its_own(tmp_path: Path, name: str, path: str) -> None:
    file = tmp_path / "data.csv"
    file.write_text("1")
    assert dataset_path(name, file) == f"/manta/datasets/{path}"
