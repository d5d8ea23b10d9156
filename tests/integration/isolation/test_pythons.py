"""Sandboxed, and confined, tasks of nodes whose Python is installed in all kinds of places."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from manta.node.runners.local import SOURCES
from manta.protocol.isolation import LANDLOCK

SCRIPT = """
import sys
from pathlib import Path
from tests.support.harness import Node
from manta.node.isolation.holding import Holder
from manta.node.runners.selection import local, local_runner
level, *paths = sys.argv[1:]
folder, *private = map(Path, paths)
found = local([*private, Path.home()], [level])
if found.level != level:
    sys.exit(found.why)
folder.mkdir()
node = Node(folder, local_runner(found, private, Holder(folder.parent.name)))
secrets = [str(path / "secret") for path in private]
code = (
    "import sys, msgpack\\n"
    "def main():\\n"
    f"    return [sys.prefix, [path for path in {secrets} if read(path)]]\\n"
    "def read(path):\\n"
    "    try:\\n"
    "        return open(path).read()\\n"
    "    except OSError:\\n"
    "        return ''\\n"
)
try:
    print(node.start(code).run().output)
finally:
    node.close()
"""


def started_by(python: Path, level: str, folder: Path, *private: Path, home: Path) -> str:
    """What a task of a node with that Python says: its prefix, and which secrets it reads. Or why
    the node can't run any so."""
    done = subprocess.run(
        [str(python), "-c", SCRIPT, level, str(folder / "node"), *map(str, private)],
        cwd=SOURCES,
        env={**os.environ, "PYTHONPATH": str(SOURCES), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return (done.stdout or done.stderr).strip()


def environment(folder: Path, *options: str, python: str = sys.executable) -> Path:
    """The Python of a new virtual environment, in which is what is installed in this one."""
    command = [python, "-m", "venv", "--without-pip", *options, str(folder)]
    subprocess.run(command, check=True, timeout=60)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "installed.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


@pytest.mark.parametrize("options", [(), ("--copies",)], ids=["links", "copies"])
def test_an_environment_in_its_owner_s_home(
    level: str, tmp_path: Path, options: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    python = environment(home / "project" / "venv", *options)
    (home / "secret").write_text("a key")
    (home / "project" / "secret").write_text("a token")
    said = started_by(python, level, tmp_path, home / "project", home=home)
    assert said == f"['{home}/project/venv', []]"


def test_an_environment_behind_links(level: str, tmp_path: Path) -> None:
    environment(tmp_path / "disk" / "venv")
    (tmp_path / "opt").symlink_to("disk")
    (tmp_path / "current").symlink_to(tmp_path / "opt" / "venv")
    python = tmp_path / "current" / "bin" / "python"
    assert started_by(python, level, tmp_path, home=tmp_path) == f"['{tmp_path}/current', []]"


def test_an_environment_that_is_the_owner_s_home(level: str, tmp_path: Path) -> None:
    home = tmp_path / "manta"
    python = environment(home)
    (home / "secret").write_text("a key")
    assert started_by(python, level, tmp_path, home, home=home) == f"['{home}', []]"


def test_state_that_lies_in_the_environment_is_not_seen(level: str, tmp_path: Path) -> None:
    python = environment(tmp_path / "venv")
    state = tmp_path / "venv" / "lib" / "state"
    state.mkdir()
    (state / "secret").write_text("a key")
    said = started_by(python, level, tmp_path, state, home=tmp_path)
    if level == LANDLOCK:  # which can't leave out what lies in a folder
        assert said.startswith(
            "no process can confine itself by Landlock (A task is to read all of"
        )
        return
    assert said == f"['{tmp_path}/venv', []]"


def test_an_environment_of_the_system_s_python(level: str, tmp_path: Path) -> None:
    system = f"/usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    if not Path(system).exists():
        pytest.skip(f"there is no {system}, and no other version has what is installed here")
    python = environment(tmp_path / "venv", python=system)
    assert started_by(python, level, tmp_path, home=tmp_path) == f"['{tmp_path}/venv', []]"
