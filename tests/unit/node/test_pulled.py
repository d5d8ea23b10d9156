"""Which images a node has pulled itself, and which of them go first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from manta.node.runners.pulled import Image, Pulled, to_go

THREE = {
    "old": Image("sha256:1", 40, 1.0),
    "older": Image("sha256:2", 40, 0.5),
    "new": Image("sha256:3", 40, 2.0),
}


@pytest.mark.parametrize(
    ("most", "most_images", "keep", "go"),
    [
        (120, 3, (), []),
        (119, 3, (), ["older", "old", "new"]),
        (119, 3, ("older",), ["old", "new"]),
        (0, 3, THREE, []),
        (120, 2, (), ["older", "old", "new"]),
    ],
)
def test_those_not_used_for_longest_go_first_and_none_without_need(
    most: int, most_images: int, keep: tuple[str, ...], go: list[str]
) -> None:
    assert to_go(THREE, most, keep, most_images) == go


def test_they_are_known_to_the_next_daemon(tmp_path: Path) -> None:
    path = tmp_path / "images.json"
    these = Pulled(path, 50)
    these.add("one", "sha256:1", 40)
    assert these.next_to_go(()) is None
    these.add("two", "sha256:2", 40)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Pulled(path, 50).next_to_go(()) == ("one", "sha256:1")
    assert Pulled(path, 50).next_to_go({"one"}) == ("two", "sha256:2")
    these.forget("one")
    assert Pulled(path, 50).next_to_go(()) is None


def test_one_that_is_used_stays_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "time", lambda: now)
    these = Pulled(tmp_path / "images.json", 50)
    these.add("one", "sha256:1", 40)
    now += 100
    these.add("two", "sha256:2", 40)
    now += 100
    these.use("one")
    these.use("of somebody else")
    found = these.next_to_go(())
    assert found == ("two", "sha256:2")
    assert Pulled(tmp_path / "images.json", 0).next_to_go({"two"}) == ("one", "sha256:1")
    assert Pulled(tmp_path / "images.json", 0).next_to_go({"one", "two"}) is None


@pytest.mark.parametrize("junk", [b"", b"{", b"\xff", b'{"images": {"a": 1}}'])
def test_where_it_is_not_known_which_nothing_goes(
    tmp_path: Path, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "images.json"
    path.write_bytes(junk)
    these = Pulled(path, 0)
    assert these.next_to_go(()) is None
    assert "images.json is damaged" in caplog.text
    these.add("one", "sha256:1", 40)
    assert Pulled(path, 0).next_to_go(()) == ("one", "sha256:1")


def test_a_disk_that_takes_nothing_costs_no_more_than_the_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    these = Pulled(tmp_path / "file" / "images.json", 0)
    these.add("one", "sha256:1", 40)
    assert "It can't be kept which images this node has pulled" in caplog.text
    assert these.next_to_go(()) == ("one", "sha256:1")
