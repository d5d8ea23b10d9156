"""How much a scratch folder takes."""

from __future__ import annotations

import os
from pathlib import Path

from manta.node.tasks.scratch import size_of

BLOCK = 4096


def test_files_below_count_once_and_what_they_take_on_the_disk(tmp_path: Path) -> None:
    empty = size_of(tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    folders = size_of(tmp_path)
    (tmp_path / "a" / "one").write_bytes(bytes(10 * BLOCK))
    one = size_of(tmp_path)
    assert folders - empty < BLOCK * 4
    assert 10 * BLOCK <= one - folders <= 11 * BLOCK
    os.link(tmp_path / "a" / "one", tmp_path / "a" / "b" / "two")
    (tmp_path / "out").symlink_to("/usr")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(1 << 40)
    assert size_of(tmp_path) - one <= 2 * BLOCK


def test_a_folder_that_is_gone_takes_nothing(tmp_path: Path) -> None:
    assert size_of(tmp_path / "nowhere") == 0
