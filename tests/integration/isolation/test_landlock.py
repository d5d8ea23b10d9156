"""Landlock in the kernel, by each version of its interface up to the one that it has."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.node.isolation import landlock
from tests.support.confined import LANDLOCK, run

ABIS = range(1, landlock.available() + 1)
PYTHON = (
    "[Rule(p, RUN, True) for p in {'/usr', '/lib', '/lib64', '/bin', sys.prefix, sys.base_prefix}]"
)


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for name in ("read", "own", "outside", "unlisted"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path


def tried(folders: Path, code: str, abi: int | None = None) -> dict[str, object]:
    """What the code leaves in `found`; `refused` says whether a call is."""
    rules = (
        f"[Rule({str(folders / 'read')!r}, READ), Rule({str(folders / 'own')!r}, OWN), "
        f"Rule({str(folders / 'unlisted')!r}, UNLISTED), Rule('/dev/null', DEVICE), "
        f"Rule('/proc', READ), Rule('/nowhere', READ, True), *{PYTHON}]"
    )
    head = f"""
import ctypes, json, os, socket, subprocess, sys
os.chdir({str(folders)!r})
found = {{}}
def refused(call, *arguments, **more):
    try:
        call(*arguments, **more)
    except (PermissionError, OSError) as error:
        return error.errno in (1, 13, 18)
    return False
"""
    before = "import sys\n" + LANDLOCK.format(rules=rules, abi=abi)
    said = run(before, head + code + "\nprint(json.dumps(found))")
    return json.loads(said)


def test_the_kernel_has_landlock() -> None:
    assert landlock.available() >= 1, "tasks can be confined by nothing else here: see docs/node.md"


@pytest.mark.parametrize("abi", ABIS)
def test_files_are_what_the_rules_say(folders: Path, abi: int) -> None:
    found = tried(
        folders,
        """
found["read"] = open("read/file").read()
found["list"] = os.listdir("own")
open("own/new", "w").write("x")
os.mkdir("own/sub"); os.symlink("new", "own/link"); os.mkfifo("own/fifo"); os.unlink("own/fifo")
os.rename("own/new", "own/renamed")
open("unlisted/name", "w").close()
found["open"] = [what for what, is_refused in {
    "write": refused(open, "read/file", "w"),
    "make": refused(open, "read/new", "w"),
    "remove": refused(os.unlink, "read/file"),
    "outside": refused(open, "outside/file"),
    "list": refused(os.listdir, "outside"),
    "above": refused(os.listdir, ".."),
    "dots": refused(open, "own/../outside/file"),
    "link": refused(lambda: (os.symlink("../outside/file", "own/out"), open("own/out"))),
    "hard link": refused(os.link, "outside/file", "own/hard"),
    "move in": refused(os.rename, "outside/file", "own/moved"),
    "move out": refused(os.rename, "own/renamed", "outside/moved"),
    "unlisted": refused(os.listdir, "unlisted"),
    "run": refused(os.execv, "outside/file", ["x"]),
    "root": refused(open, "/new", "w"),
    "usr": refused(open, "/usr/new", "w"),
    "device": refused(os.mknod, "own/null", 0o20666, os.makedev(1, 3)),
    "shadow": refused(open, "/etc/shadow"),
}.items() if not is_refused]
""",
        abi,
    )
    assert found == {"read": "read", "list": ["file"], "open": []}


@pytest.mark.parametrize("abi", ABIS)
def test_a_file_is_not_cut_short_as_far_as_the_kernel_knows(folders: Path, abi: int) -> None:
    found = tried(folders, "found['cut'] = refused(os.truncate, 'read/file', 0)", abi)
    assert found["cut"] is (abi >= 3)


@pytest.mark.parametrize("abi", ABIS)
def test_folders_of_ones_own_exchange_files_as_far_as_the_kernel_knows(
    folders: Path, abi: int
) -> None:
    code = "os.mkdir('own/a')\nfound['move'] = refused(os.rename, 'own/file', 'own/a/file')"
    assert tried(folders, code, abi)["move"] is (abi < 2)


@pytest.mark.parametrize("abi", ABIS)
def test_tcp_is_refused_as_far_as_the_kernel_knows(folders: Path, abi: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = tried(
            folders,
            f"""
found["connect"] = refused(socket.create_connection, {listener.getsockname()!r})
found["bind"] = refused(socket.socket().bind, ("127.0.0.1", 0))
""",
            abi,
        )
    assert found == {"connect": abi >= 4, "bind": abi >= 4}


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "100"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("abi", ABIS)
def test_processes_outside_are_out_of_reach_as_far_as_the_kernel_knows(
    folders: Path, abi: int, bystander: subprocess.Popen[bytes]
) -> None:
    name = f"\0manta-test-{os.getpid()}-{abi}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        found = tried(
            folders,
            f"""
libc = ctypes.CDLL(None, use_errno=True)
found["signal"] = refused(os.kill, {bystander.pid}, 0)
found["abstract"] = refused(socket.socket(socket.AF_UNIX).connect, {name!r})
found["ptrace"] = libc.ptrace(16, {bystander.pid}, 0, 0)
for file in ("environ", "mem", "root/etc/shadow", "fd/0"):
    look = os.readlink if file == "fd/0" else open
    found[file] = refused(look, f"/proc/{bystander.pid}/{{file}}")
inside = subprocess.Popen(["sleep", "10"])
inside.terminate()
found["own"] = -inside.wait()
""",
            abi,
        )
    assert found == {
        "signal": abi >= 6,
        "abstract": abi >= 6,
        "ptrace": -1,
        "environ": True,
        "mem": True,
        "root/etc/shadow": True,
        "fd/0": True,
        "own": signal.SIGTERM,
    }


def test_a_rule_for_nothing_fails_with_its_path(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    code = (
        "from manta.node.isolation.landlock import *\nfrom manta.node.isolation import privileges\n"
        f"privileges.drop()\nrestrict([Rule({str(missing)!r}, READ)])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert f"No such file or directory: '{missing}'" in ended.stderr
