from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta.node.state.modules import ModuleFolders


def digest(number: int) -> str:
    return f"{number:064x}"


def unpack(folders: ModuleFolders, number: int, user: str, size: int = 10) -> Path:
    folder = folders.use(digest(number), user)
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "m.py").write_bytes(bytes(size))
    os.utime(folder, (number, number))
    return folder


def numbers(path: Path) -> list[int]:
    return sorted(int(each.name, 16) for each in path.iterdir())


def test_those_unused_for_longest_go_and_those_in_use_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folders = ModuleFolders(tmp_path, most=3)
    unpack(folders, 1, "a")
    for number in range(2, 6):
        unpack(folders, number, "b")
        folders.trim()
    assert numbers(tmp_path) == [1, 4, 5]
    assert caplog.text.count("was removed") == 2
    folders.use(digest(4), "b")  # which makes it the latest
    unpack(folders, 6, "c")
    folders.leave("c")
    folders.trim()
    assert numbers(tmp_path) == [1, 4, 6]
    folders.leave("a")
    unpack(folders, 7, "c")
    folders.trim()
    assert numbers(tmp_path) == [4, 6, 7]


def test_they_are_bounded_in_bytes(tmp_path: Path) -> None:
    folders = ModuleFolders(tmp_path, most_bytes=1000)
    for number in range(1, 4):
        unpack(folders, number, "a", 400)
        folders.trim()
    assert numbers(tmp_path) == [2, 3]
    unpack(folders, 4, "b", 5000)  # in use, as the third is
    folders.trim()
    assert numbers(tmp_path) == [3, 4]


def test_what_a_killed_daemon_left_goes(tmp_path: Path) -> None:
    unpack(ModuleFolders(tmp_path), 1, "a")
    (tmp_path / ".draft-x" / "deep").mkdir(parents=True)
    (tmp_path / ".draft-x-damaged").mkdir()
    ModuleFolders(tmp_path)
    assert numbers(tmp_path) == [1]
