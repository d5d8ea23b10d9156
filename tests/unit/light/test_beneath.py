"""What lies in a dataset's folder is read, and nothing that its links lead out to."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta.light import Local
from manta.light.beneath import LeadsOut, open_beneath
from manta.light.context import Brief, usage
from manta.light.errors import DatasetNotFound
from manta.light.path import MantaPath

SECRET = b"secret"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(SECRET)
    folder = tmp_path / "data"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "a").write_bytes(b"a")
    (folder / "deep" / "b").write_bytes(b"b")
    return folder


def content(folder: Path, path: str) -> bytes:
    fd = open_beneath(str(folder), path, os.O_RDONLY)
    with open(fd, "rb") as file:
        return file.read()


INSIDE = {  # by the link: where it leads, and a path that goes through it
    "near": ("a", "near"),
    "down": ("deep/b", "down"),
    "deep/up": ("../a", "deep/up"),
    "deep/deeper/top": ("../..", "deep/deeper/top/a"),
    "through": ("deep", "through/b"),
    "long": ("deep/../deep/./deeper/..//b", "long"),
    "chain": ("through/up", "chain"),
    "absolute": ("ROOT/deep/b", "absolute"),
    "root": ("ROOT", "root/deep/b"),
}
OUTSIDE = {
    "parent": ("../secret", "parent"),
    "deep/far": ("../../secret", "deep/far"),
    "twice": ("deep/../../secret", "twice"),
    "system": ("/etc/passwd", "system"),
    "folder": ("..", "folder/secret"),
    "slash": ("/", "slash/etc/passwd"),
    "sibling": ("ROOT-other/x", "sibling"),
    "by": ("parent", "by"),
    "dots": ("ROOT/../secret", "dots"),
}


def make(folder: Path, links: dict[str, tuple[str, str]]) -> None:
    for name, (target, _) in links.items():
        (folder / name).symlink_to(target.replace("ROOT", str(folder)))


def test_links_within_are_followed(folder: Path) -> None:
    make(folder, INSIDE)
    for name, (_, path) in INSIDE.items():
        assert content(folder, path) == (folder / path).read_bytes(), name
    assert content(folder, "./deep//../deep/b") == b"b"


@pytest.mark.parametrize("name", OUTSIDE)
def test_links_that_lead_out_are_not(folder: Path, name: str) -> None:
    make(folder, OUTSIDE)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, None):
        with pytest.raises(LeadsOut):
            open_beneath(str(folder), OUTSIDE[name][1], *(() if flags is None else (flags,)))
    assert (folder.parent / "secret").read_bytes() == SECRET


def test_paths_that_lead_out_are_not_followed(folder: Path) -> None:
    for path in ("..", "../secret", "deep/../../secret", "deep/../.."):
        with pytest.raises(LeadsOut):
            content(folder, path)


def test_what_is_wrong_is_told_with_the_whole_path(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    (folder / "nothing").symlink_to("deep/none")
    for path, error in (
        ("none", FileNotFoundError),
        ("nothing", FileNotFoundError),
        ("a/b", NotADirectoryError),
        ("deep", IsADirectoryError),
        ("loop", OSError),
    ):
        with pytest.raises(error) as raised:
            os.close(open_beneath(str(folder), path, os.O_WRONLY))
        assert raised.value.filename == str(folder / path)
    fd = open_beneath(str(folder / "deep"), "", os.O_RDONLY | os.O_DIRECTORY)
    assert sorted(os.listdir(fd)) == ["b", "deeper"]
    os.close(fd)


def test_a_link_that_changes_all_the_time_never_leads_out(folder: Path) -> None:
    """10,000 tries, while another thread exchanges file and link, folder and link."""
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(SECRET)
    (folder / "x").write_bytes(b"fine")
    (folder / "y").mkdir()
    (folder / "y" / "b").write_bytes(b"fine")
    (folder / "to x").symlink_to(folder.parent / "secret")
    (folder / "to y").symlink_to(outside)
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            for name in ("x", "y"):
                for old, new in ((name, "t"), (f"to {name}", name), ("t", f"to {name}")):
                    os.rename(folder / old, folder / new)

    thread = threading.Thread(target=exchange)
    thread.start()
    seen: set[type] = set()
    try:
        for number in range(10_000):
            try:
                got = content(folder, ("x", "y/b")[number % 2])
            except (LeadsOut, OSError) as error:
                seen.add(type(error))
            else:
                assert got == b"fine"
                seen.add(bytes)
    finally:
        done.set()
        thread.join()
    assert {LeadsOut, bytes} <= seen, "it was exchanged, and it was read"


class Attempt:
    """The context of an attempt that has only datasets."""

    def __init__(self, **datasets: str) -> None:
        self.brief = Brief(datasets=datasets)

    def call(self, request: str, /, **fields: object) -> object:
        raise AssertionError(request)


@contextmanager
def attempt(**datasets: Path) -> Iterator[Local]:
    usage.context = Attempt(**{name: str(path) for name, path in datasets.items()})
    try:
        yield Local()
    finally:
        usage.context = None


def test_a_task_is_told_which_link_of_which_dataset_leads_where(folder: Path) -> None:
    make(folder, OUTSIDE)
    with attempt(pictures=folder, other=folder.parent) as local:
        whole = local.dataset_path("pictures")
        for use in (
            lambda: local.dataset_path("pictures", "system"),
            lambda: local.get_binary_data("pictures/system"),
            lambda: local.read_file_lines("pictures", "system"),
            lambda: local.get_dataset("pictures", "system"),
            lambda: (whole / "system").read_bytes(),
            lambda: (whole / "system").read_text(),
            lambda: (whole / "system").open("w"),
            lambda: local.dataset_path("pictures/system").stat(),
        ):
            with pytest.raises(
                DatasetNotFound, match=r"'system' of the dataset 'pictures' leads out of it, to '/e"
            ):
                use()
        for listed in (lambda: local.list_dir("pictures", "folder"), (whole / "folder").list_dir):
            with pytest.raises(DatasetNotFound, match="'folder' of the dataset 'pictures' leads"):
                listed()
        assert not local.exists("pictures", "system")
        assert local.get_binary_data("pictures", "deep/b").read() == b"b"
        assert local.list_dir("pictures", "deep") == ["b", "deeper", "far"]
        assert local.get_binary_data("other", "secret").read() == SECRET
    assert (MantaPath(folder) / "a").read_bytes() == b"a", "outside of an attempt"
