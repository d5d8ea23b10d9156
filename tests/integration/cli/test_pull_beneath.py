"""`manta pull` writes into one new folder, whatever manager, swarm and tags are called."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from manta.apis.connect import profiles
from manta.apis.sync.connection import Connection
from manta.cli.commands import pull
from manta.console.exit_codes import Exit
from manta.protocol.user import SelectedGlobal, SelectGlobal
from manta.transports.security.keys import KeyPair
from tests.support.hostile import EVIL, Manager

NAMES = [
    "..", ".", "", "../../up", "/tmp/absolute", "x/../../y", "~root", "C:\\x", "\0", "a\0/../b",
    "a" * 5000, "é" * 300, "CON", "nul.txt", "-rf", "trailing. ", "globals", "manifest.json",
    "a/" * 300, EVIL, "$(touch x)", "Model", "model", "MODEL", "\u00e9", "e\u0301",
]  # fmt: skip


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a user who is signed in; what is beside it must stay as it is."""
    home, place = tmp_path / "home", tmp_path / "beside" / "place"
    monkeypatch.setenv("MANTA_HOME", str(home))
    profile = profiles.Profile("localhost", 1, KeyPair.generate().public, "a@example.org")
    profiles.save_profile(home, "default", profile)
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(monkeypatch)


def pulled(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(pull.pull, ["s", *words])
    return done.exit_code, done.output + str(done.exception or "")


def beneath(folder: Path) -> Iterator[str]:
    yield from sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_swarm_of_any_name_is_one_folder_here(name: str, place: Path, manager: Manager) -> None:
    manager.text = name
    around = set(place.parent.parent.rglob("*"))
    code, said = pulled()
    assert code == 0, said
    (folder,) = place.iterdir()
    new = set(place.parent.parent.rglob("*")) - around - set(folder.rglob("*")) - {folder}
    assert {path for path in new if "home" not in path.parts} == set()
    assert folder.is_dir()
    assert not folder.is_symlink()
    assert folder.stat().st_mode & 0o777 == (folder / "globals").stat().st_mode & 0o777
    assert pull.check(folder) == []


@pytest.mark.parametrize("id_", ["../../up", "/tmp/absolute", "..", "x" * 200, "CON "])
def test_so_is_a_swarm_of_any_id(id_: str, place: Path, manager: Manager) -> None:
    manager.id = id_
    around = {path for path in place.parent.parent.rglob("*") if "home" not in path.parts}
    code, said = pulled()
    assert code == 0, said
    (folder,) = place.iterdir()
    there = {path for path in place.parent.parent.rglob("*") if "home" not in path.parts}
    assert there - around - set(folder.rglob("*")) == {folder}


def test_every_tag_has_a_file_of_its_own(place: Path, manager: Manager) -> None:
    manager.tags = tuple(NAMES)
    code, said = pulled("here")
    assert code == 0, said
    index = json.loads((place / "here" / "globals.json").read_text())
    assert [entry["tag"] for entry in index] == NAMES
    files = [entry["file"] for entry in index]
    assert len({file.casefold() for file in files}) == len(NAMES)
    for file in files:
        path = place / "here" / file
        assert path.is_file()
        assert path.parent == place / "here" / "globals"


def test_a_global_that_is_deleted_meanwhile_is_left_out(
    place: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(_: object, message: object, reply: object, **how: object) -> object:
        if isinstance(message, SelectGlobal) and message.tag == "gone":
            return SelectedGlobal(None)
        return manager._ask(message, reply, **how)

    monkeypatch.setattr(Connection, "_ask", ask)
    manager.tags = ("first", "gone", "last")
    code, said = pulled("here")
    assert code == 0, said
    index = json.loads((place / "here" / "globals.json").read_text())
    assert [entry["tag"] for entry in index] == ["first", "last"]
    assert pull.check(place / "here") == []


@pytest.mark.parametrize("target", ["outside", "nowhere"])
def test_a_link_in_its_place_is_not_followed(place: Path, manager: Manager, target: str) -> None:
    outside = place.parent / "outside"
    outside.mkdir()
    (place / "here").symlink_to(place.parent / target)
    code, said = pulled("here")
    assert code == Exit.USAGE, said
    assert [*outside.iterdir()] == []
    assert [*beneath(place)] == ["here"]


def test_a_link_that_is_put_there_meanwhile_is_not_followed(
    place: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = place.parent / "outside"
    outside.mkdir()
    write = pull._write

    def slow(*arguments: object) -> tuple[int, int]:
        done = write(*arguments)  # type: ignore[arg-type]
        (place / "here").symlink_to(outside)
        return done

    monkeypatch.setattr(pull, "_write", slow)
    code, said = pulled("here")
    assert code != 0
    assert "cannot be written" in said
    assert [*outside.iterdir()] == []
    assert [*beneath(place)] == ["here"]


def test_nobody_else_can_reach_into_a_folder_that_is_being_written(
    place: Path, manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    write = pull._write

    def watched(*arguments: object) -> tuple[int, int]:
        done = write(*arguments)  # type: ignore[arg-type]
        (draft,) = place.iterdir()
        modes.append(draft.stat().st_mode & 0o777)
        return done

    monkeypatch.setattr(pull, "_write", watched)
    assert pulled("here")[0] == 0
    assert modes == [0o700]


def test_the_longest_name_that_a_disk_takes_can_be_given(place: Path, manager: Manager) -> None:
    name = "f" * 255
    code, said = pulled(name)
    assert code == 0, said
    assert [path.name for path in place.iterdir()] == [name]
