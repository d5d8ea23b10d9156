"""What lies in a dataset's folder is read, and nothing that its links lead out to."""

from __future__ import annotations

import os
import stat
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


def test_what_must_be_new_is_not_made_at_the_end_of_a_link(folder: Path) -> None:
    (folder / "to a").symlink_to("a")
    (folder / "to nothing").symlink_to("none")
    for name in ("a", "to a", "to nothing"):
        with pytest.raises(FileExistsError):
            open_beneath(str(folder), name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert not (folder / "none").exists()
    os.close(open_beneath(str(folder), "new", os.O_WRONLY | os.O_CREAT | os.O_EXCL))


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


LOOKS = {
    "stat": lambda path: path.stat(),
    "exists": lambda path: path.exists(),
    "is_dir": lambda path: path.is_dir(),
    "is_file": lambda path: path.is_file(),
    "is_fifo": lambda path: path.is_fifo(),
    "samefile": lambda path: path.samefile("/"),
    "resolve": lambda path: path.resolve(),
    "glob": lambda path: list(path.glob("*")),
    "glob **": lambda path: list(path.glob("**/*")),
    "rglob": lambda path: list(path.rglob("b*")),
    "iterdir": lambda path: list(path.iterdir()),
}
THROUGH = {
    "stat": lambda path: (path / "b").stat(),
    "lstat": lambda path: (path / "b").lstat(),
    "exists": lambda path: (path / "b").exists(),
    "is_symlink": lambda path: (path / "b").is_symlink(),
    "glob": lambda path: list(path.parent.glob(f"{path.name}/*")),
    "glob of all": lambda path: list(path.parent.glob("*/*")),
    "glob of one": lambda path: list(path.parent.glob(f"{path.name}/b")),
    "rglob": lambda path: list(path.parent.rglob(f"{path.name}/b")),
    "up": lambda path: list(path.parent.glob("../*/b")),
}


@pytest.mark.parametrize("look", [*LOOKS, *(f"{name} through" for name in THROUGH)])
def test_nobody_looks_around_outside_through_a_link(folder: Path, look: str) -> None:
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(SECRET)
    (folder / "link").symlink_to("../outside")
    with attempt(pictures=folder) as local:
        link = local.dataset_path("pictures") / "link"
        call = LOOKS.get(look) or THROUGH[look.removesuffix(" through")]
        with pytest.raises(DatasetNotFound, match=r"of the dataset 'pictures' leads out of it"):
            call(link)


def test_within_a_dataset_a_path_tells_what_any_path_does(folder: Path) -> None:
    make(folder, INSIDE)
    (folder / "loop").symlink_to("loop")
    (folder / "nothing").symlink_to("none")
    paths = ["", ".", "a", "a/b", "none", "loop", "nothing", "deep", "deep/b", "x\0y", "deep/.."]
    paths += [path for _, path in INSIDE.values()]
    with attempt(pictures=folder):
        for path in paths:
            ours, plain = MantaPath(folder) / path, folder / path
            for name in ("exists", "is_dir", "is_file", "is_symlink", "is_fifo"):
                assert getattr(ours, name)() == getattr(plain, name)(), (path, name)
            if plain.exists():
                assert ours.stat() == plain.stat()
                assert ours.lstat() == plain.lstat()
                assert ours.resolve() == plain.resolve()
        for pattern in ("*", "**", "**/*", "*/*", "deep/*", "[ab]", "through/b", "none/*"):
            found = sorted(MantaPath(folder).glob(pattern))
            assert [str(one) for one in found] == sorted(map(str, folder.glob(pattern))), pattern
            assert sorted(MantaPath(folder).rglob(pattern)) == sorted(folder.rglob(pattern))


def test_a_link_out_of_a_dataset_is_listed_and_told_to_be_one(folder: Path) -> None:
    make(folder, OUTSIDE)
    with attempt(pictures=folder) as local:
        whole = local.dataset_path("pictures")
        names = {one.name for one in whole.glob("*")}
        assert names == set(os.listdir(folder))
        assert {one.name for one in whole.rglob("*")} >= names | {"far"}
        assert (whole / "folder").is_symlink()
        assert stat.S_ISLNK((whole / "folder").lstat().st_mode)


@pytest.mark.skipif(not hasattr(Path, "walk"), reason="pathlib walks since Python 3.12")
def test_a_walk_stays_within(folder: Path) -> None:
    make(folder, {"far": ("..", "")})
    with attempt(pictures=folder) as local:
        whole = local.dataset_path("pictures")
        walked = sorted(str(found) for found, _, _ in whole.walk())
        assert walked == sorted(map(str, (folder, folder / "deep", folder / "deep" / "deeper")))
        with pytest.raises(DatasetNotFound):
            list((whole / "far").walk())
        with pytest.raises(DatasetNotFound):
            list(whole.walk(follow_symlinks=True))
