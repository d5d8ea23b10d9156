from __future__ import annotations

import os
from pathlib import Path

import pytest

from manta.actors import Refused
from manta.node.capabilities import datasets
from manta.protocol.node import DatasetInfo


@pytest.fixture
def mappings(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "a.NPZ").write_bytes(b"12345")
    (tmp_path / "plain").write_bytes(b"1")
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "x").write_bytes(b"123")
    (tmp_path / "d" / "e" / "y").write_bytes(b"4567")
    names = {"file": "a.NPZ", "plain": "plain", "folder": "d", "gone": "nowhere"}
    return {name: tmp_path / path for name, path in names.items()}


def test_survey_tells_of_what_is_there(mappings: dict[str, Path]) -> None:
    assert datasets.survey(mappings) == (
        DatasetInfo("file", 5, "npz"),
        DatasetInfo("plain", 1, "file"),
        DatasetInfo("folder", 7, "folder"),
    )


def test_a_device_or_a_pipe_is_no_dataset(tmp_path: Path) -> None:
    """Reading one may never end."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    mapped = {"device": Path("/dev/zero"), "pipe": tmp_path / "pipe", "link": tmp_path / "link"}
    assert datasets.survey(mapped) == ()
    for name in mapped:
        with pytest.raises(Refused, match="is neither a file nor a folder"):
            datasets.find(mapped, (name,))


def test_a_huge_folder_is_not_counted_to_the_end(
    mappings: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "SURVEY_BOUND", 1)
    assert datasets.survey(mappings)[2].size < 7


def test_only_what_is_mapped_and_there_is_found(mappings: dict[str, Path]) -> None:
    assert datasets.find(mappings, ("file", "folder")) == {
        "file": mappings["file"],
        "folder": mappings["folder"],
    }
    with pytest.raises(Refused, match=r"no dataset 'other' \(it has: file, folder, gone, plain\)"):
        datasets.find(mappings, ("other",))
    with pytest.raises(Refused, match=r"'gone' of this node, .*nowhere, does not exist"):
        datasets.find(mappings, ("file", "gone"))
    with pytest.raises(Refused, match="it has: none"):
        datasets.find({}, ("other",))
