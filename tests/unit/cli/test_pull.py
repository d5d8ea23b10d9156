"""Each value that is pulled is also in a format that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.cli.commands.pull import MANIFEST, _readable, check


def written(folder: Path, value: Any) -> Path:
    _readable(folder, "a.b", value)
    (path,) = folder.iterdir()
    return path


@pytest.mark.parametrize(
    ("value", "name", "content"),
    [
        (b"raw", "a.b.bin", b"raw"),
        ("two\r\nlines", "a.b.txt", b"two\r\nlines"),
        ("caf\udce9", "a.b.json", "caf\udce9"),
        ({"raw": b"\xff", "x": float("nan")}, "a.b.json", {"raw": "ff", "x": None}),
        (np.float32(0.5), "a.b.json", 0.5),
        ({"w": np.ones(2), "none": None}, "a.b.json", {"w": [1.0, 1.0], "none": None}),
    ],
)
def test_what_is_no_array(tmp_path: Path, value: Any, name: str, content: Any) -> None:
    path = written(tmp_path, value)
    assert path.name == name
    found = json.loads(path.read_text()) if name.endswith("json") else path.read_bytes()
    assert found == content


def test_arrays_are_arrays_of_numpy(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "some").mkdir()
    assert np.load(written(tmp_path / "one", np.arange(3))).tolist() == [0, 1, 2]
    some = {"file": np.arange(3), "a/b": [1, np.ones(1)], "a": {"b": [2.0]}, "s": "text"}
    with np.load(written(tmp_path / "some", some)) as found:
        assert {key: found[key].tolist() for key in found} == {
            "file": [0, 1, 2],
            "a%2Fb/0": 1,
            "a%2Fb/1": [1],
            "a/b/0": 2,
            "s": "text",
        }


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": []}',
        b'{"swarm_id": "1", "status": "COMPLETED", "files": {"a": 1}}',
        b'{"files": "\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    (flaw,) = check(tmp_path)
    assert flaw.startswith(f"{tmp_path / MANIFEST} is damaged (")
    assert flaw.endswith("what was pulled is not known; pull the swarm again.")


def test_what_is_no_manifest_is_told_in_a_sentence(tmp_path: Path) -> None:
    (missing,) = check(tmp_path)
    (tmp_path / MANIFEST).mkdir()
    (folder,) = check(tmp_path)
    assert {missing, folder} == {
        f"{tmp_path / MANIFEST} cannot be read ({why}): pull the swarm again."
        for why in ("No such file or directory", "Is a directory")
    }
