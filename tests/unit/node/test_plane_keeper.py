"""The keeper of a plane that cannot be begun."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from manta.actors import Refused
from manta.node.plane.keeper import PlaneKeeper
from manta.protocol.base import Instance


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a keeper tells itself after a pause."""
    told: list[Any] = []
    monkeypatch.setattr(PlaneKeeper, "after", lambda self, delay, message: told.append(message))
    monkeypatch.setattr(PlaneKeeper, "log", logging.getLogger("test"), raising=False)
    return told


def test_what_one_before_has_kept_waits_until_the_next_can_be_begun(
    tmp_path: Path, later: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.spool").touch()
    state: Any = SimpleNamespace(plane=tmp_path)
    keeper = PlaneKeeper(SimpleNamespace(state=state, identity=SimpleNamespace(node_id="id-1")))  # type: ignore[arg-type]
    tries: list[str] = []

    def begin(self: PlaneKeeper) -> None:
        tries.append("begun")
        if len(tries) < 3:
            raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(PlaneKeeper, "_begin", begin)
    keeper.on_start()
    while later:
        keeper.receive(later.pop())
    assert len(tries) == 3


def test_who_knocks_is_heard_though_no_plane_could_be_begun_for_an_attempt(
    tmp_path: Path, later: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: PlaneKeeper) -> None:
        raise OSError(24, "Too many open files")

    listened: list[str] = []
    monkeypatch.setattr(PlaneKeeper, "_begin", begin)
    monkeypatch.setattr(PlaneKeeper, "_listen", lambda self: listened.append("again"))
    keeper = PlaneKeeper(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(Refused, match="Too many open files"):
        keeper._connect(Instance("s", "t", 0, 0, 0), "owner")
    for message in later:
        keeper.receive(message)
    assert listened == ["again"]
