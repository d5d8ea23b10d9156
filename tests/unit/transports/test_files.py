"""Every reader of a file has a bound, and says which."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from manta.apis.compile.imports import names_in
from manta.apis.connect import profiles
from manta.apis.errors import ProfileError
from manta.console.local_manager import SETTINGS, remembered_port
from manta.node import config
from manta.node.config.reading import MOST
from manta.node.errors import ConfigError, IdentityError
from manta.node.state import StateFolder
from manta.transports.errors import KeyFileError
from manta.transports.files import FileTooLarge, read_bounded, read_end
from manta.transports.security.keys import read_private


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for size in (0, 1, 99, 100, 3 << 20):
        file.write_bytes(b"x" * size)
        if size <= 100:
            assert read_bounded(file, 100) == b"x" * size
        assert read_bounded(file, 3 << 20) == b"x" * size
    with pytest.raises(FileTooLarge, match="more than 64 KiB, the most that may be in it"):
        read_bounded(file)


def test_of_a_file_of_any_size_its_end_is_read(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"0123456789")
    assert read_end(file) == b"0123456789"
    assert read_end(file, bound=3) == b"789"
    assert read_end(file, after=8) == b"89"
    assert read_end(file, after=4, bound=3) == b"789"
    assert read_end(file, after=10) == b""
    assert read_end(file, after=11) == b"0123456789", "another file has its name by now"


def test_what_is_no_file_is_an_error_and_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        read_bounded(tmp_path / "pipe")
    with pytest.raises(IsADirectoryError):
        read_bounded(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "nothing")


def test_a_pipe_beside_a_program_or_in_the_manager_s_folder_holds_up_nobody(tmp_path: Path) -> None:
    (tmp_path / "manager").mkdir()
    os.mkfifo(tmp_path / "manager" / SETTINGS)
    assert remembered_port(tmp_path, "users", "localhost") is None
    os.mkfifo(tmp_path / "utils.py")
    assert names_in(tmp_path / "utils.py") == set()


def key(home: Path) -> None:
    path = home / "key"
    path.write_bytes(b"x" * (65 * 1024))
    path.chmod(0o600)
    read_private(path)


def profile(home: Path) -> None:
    (home / "profiles").mkdir()
    (home / "profiles" / "a.json").write_bytes(b"x" * (65 * 1024))
    profiles.load_profile(home, "a", required=True)


def profile_in_use(home: Path) -> None:
    (home / "profiles").mkdir()
    (home / profiles.CONFIG).write_bytes(b"x" * (65 * 1024))
    profiles.used_profile(home)


def configuration(home: Path) -> None:
    with open(home / "node.toml", "wb") as file:
        file.truncate(MOST + 1)
    config.load(home / "node.toml")


def identity(home: Path) -> None:
    folder = StateFolder(home)
    folder.identity_file.write_bytes(b"x" * (65 * 1024))
    folder.read_identity()


@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (key, KeyFileError),
        (profile, ProfileError),
        (profile_in_use, ProfileError),
        (configuration, ConfigError),
        (identity, IdentityError),
    ],
)
def test_who_reads_too_large_a_file_says_so(
    read: Callable[[Path], None], kind: type[Exception], tmp_path: Path
) -> None:
    with pytest.raises(kind, match="the most that may be in it") as refused:
        read(tmp_path)
    assert re.search(r"more than \d+ [KM]iB", str(refused.value))
    assert str(tmp_path) in str(refused.value)
