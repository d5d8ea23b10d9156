from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manta.node.errors import PackageError, StorageError
from manta.node.tasks import packages
from manta.node.tasks.packages import ENTRY, unpack, unpacked
from manta.transports.codec.values import encode
from tests.support.modes import unreadable


def made(files: dict[Any, Any]) -> bytes:
    return encode(files).to_bytes()


def test_unpacks_a_file_and_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    assert unpacked(folder) is None
    data = made({ENTRY: "worker.py", "worker.py": b"x = 1\n", "lib/a/b.py": b"", "l/c": b"\0"})
    assert unpack(data, folder, "it") == "worker.py"
    assert unpacked(folder) == "worker.py"
    assert (folder / "worker.py").read_bytes() == b"x = 1\n"
    assert (folder / "lib/a/b.py").read_bytes() == b""
    assert os.listdir(tmp_path) == ["m"]
    assert unpack(made({ENTRY: "p", "p/__init__.py": b""}), tmp_path / "n", "it") == "p"


def test_whoever_is_in_a_container_may_read_it_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack(made({ENTRY: "a.py", "a.py": b"", "lib/b.py": b""}), tmp_path / "m", "it")
    finally:
        os.umask(before)
    assert unreadable(tmp_path / "m") == []


def test_whoever_is_second_does_no_harm(tmp_path: Path) -> None:
    data = made({ENTRY: "a.py", "a.py": b"1"})
    for _ in range(2):
        assert unpack(data, tmp_path / "m", "it") == "a.py"
    assert os.listdir(tmp_path) == ["m"]


HOSTILE = [
    {ENTRY: "a.py", "a.py": b"", "../b": b""},
    {ENTRY: "a.py", "a.py": b"", "/etc/passwd": b""},
    {ENTRY: "a.py", "a.py": b"", "x/../../b": b""},
    {ENTRY: "a.py", "a.py": b"", "./b": b""},
    {ENTRY: "a.py", "a.py": b"", "x//b": b""},
    {ENTRY: "a.py", "a.py": b"", "x/": b""},
    {ENTRY: "a.py", "a.py": b"", "": b""},
    {ENTRY: "a.py", "a.py": b"", "x\0y": b""},
    {ENTRY: "a.py", "a.py": b"", "x\\y": b""},
    {ENTRY: "a.py", "a.py": b"", "\ud800": b""},
    {ENTRY: "a.py", "a.py": b"", "d/" * 40 + "x": b""},
    {ENTRY: "a.py", "a.py": b"", "x" * 2000: b""},
    {ENTRY: "a.py", "a.py": b"", packages.ENTRY_FILE: b"other.py"},
    {ENTRY: "a.py", "a.py": b"", "__pycache__/a.cpython-311.pyc": b""},
    {ENTRY: "a.py", "a.py": b"", "b": "text"},
    {ENTRY: "a.py", "a.py": b"", 5: b""},
    {ENTRY: "a.py", "a.py": b"", "d": b"", "d/e": b""},
    {ENTRY: "../a.py", "../a.py": b""},
    {ENTRY: "a.py"},
    {ENTRY: 3, "a.py": b""},
    {"a.py": b""},
    ["a.py"],
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_what_could_harm_is_refused_and_leaves_nothing(tmp_path: Path, hostile: Any) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    with pytest.raises((PackageError, StorageError), match="the package"):
        unpack(made(hostile), folder / "m", "the package")
    assert os.listdir(tmp_path) == ["modules"]
    assert os.listdir(folder) == []


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made({ENTRY: "a.py", "a.py": b"12345", "b.py": b"12345"})
    monkeypatch.setattr(packages, "MAX_PACKAGE_BYTES", 9)
    with pytest.raises(PackageError, match="10 bytes, and 9"):
        unpack(data, tmp_path / "m", "it")
    monkeypatch.setattr(packages, "MAX_PACKAGE_FILES", 1)
    with pytest.raises(PackageError, match="2 files, and 1"):
        unpack(data, tmp_path / "m", "it")


@given(st.binary(max_size=200))
def test_garbage_is_damaged(data: bytes) -> None:
    with pytest.raises(PackageError, match=r"it is (damaged|no module package)"):
        unpack(data, Path("/nowhere/m"), "it")


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("in the way")
    with pytest.raises(StorageError, match="cannot be written"):
        unpack(made({ENTRY: "a.py", "a.py": b""}), tmp_path / "m", "it")
    assert os.listdir(tmp_path) == ["m"]
