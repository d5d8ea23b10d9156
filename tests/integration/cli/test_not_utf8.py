"""Paths are any bytes, and what is kept as text is UTF-8: a sentence says so where they come in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.cli.test_by_hand import HELLO, Terminal
from tests.support.lab import manta

BYTES = os.fsdecode(b"caf\xe9")

TASK = """from manta.light import Local


def main():
    local = Local()
    assert local.get_dataset("texts").name == "texts"
    for name in local.list_dir("texts"):
        print(local.read_file_lines("texts", name))
"""
SWARM = """from manta import Module, Swarm, Task


class Reader(Swarm):
    def execute(self):
        return Task(Module("task.py", datasets=["texts"]))()
"""


def said(program: str, *arguments: str, cwd: Path, expected: int, **variables: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
    done = subprocess.run(
        [sys.executable, "-m", program, *arguments],
        cwd=cwd,
        env={**kept, "MANTA_HOME": str(cwd / "home"), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == expected, done.stderr
    assert "fault of Manta" not in done.stderr
    assert not list(cwd.glob("*/nodes/*"))
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line


NODE = "manta.node.command"


@pytest.mark.parametrize(
    ("program", "arguments", "variables"),
    [
        ("manta", ("new", BYTES + "-a"), {}),
        ("manta", ("run", str(HELLO), "--dataset", f"{BYTES}=/tmp"), {}),
        ("manta", ("run", str(HELLO), "--dataset", f"a={BYTES}"), {}),
        ("manta", ("up", "--dataset", f"a={BYTES}"), {}),
        (NODE, ("config", "init", "n", "--label", f"a={BYTES}"), {}),
        (NODE, ("config", "init", "n", "--label", f"{BYTES}=a"), {}),
        (NODE, ("config", "init", "n", "--dataset", f"a={BYTES}"), {}),
        (NODE, ("config", "init", "n", "--alias", BYTES), {}),
        (NODE, ("start",), {"MANTA_NODE_ALIAS": BYTES}),
        (NODE, ("start",), {"MANTA_NODE_DATASETS": f"a={BYTES}"}),
    ],
)
def test_what_is_kept_as_text_is_refused(
    program: str, arguments: tuple[str, ...], variables: Mapping[str, str], tmp_path: Path
) -> None:
    (tmp_path / BYTES).mkdir()
    line = said(program, *arguments, cwd=tmp_path, expected=2, **variables)
    assert re.search(r"caf\\udce9\S* is not UTF-8: \w+", line), line


@pytest.mark.parametrize("command", ["manta run", "manta_node config init"])
def test_so_is_a_dataset_in_a_folder_of_such_a_name(command: str, tmp_path: Path) -> None:
    folder = tmp_path / BYTES
    folder.mkdir()
    (folder / "d.txt").touch()
    program, *words = command.split()
    if program == "manta":
        words.append(str(HELLO))
    line = said(
        "manta" if program == "manta" else NODE, *words, "--dataset", "a=d.txt",
        cwd=folder, expected=2, MANTA_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert "caf\\udce9/d.txt' is not UTF-8: map a link to it" in line


def test_what_nobody_thought_of_is_a_sentence_that_names_the_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import click

    from manta.console.commands import run
    from manta.console.exit_codes import Exit

    @click.command()
    @click.argument("text")
    def command(text: str) -> None:
        text.encode()

    def tell(error: Exception) -> Exit:
        raise error

    monkeypatch.setattr(sys, "argv", ["manta", BYTES])
    with pytest.raises(SystemExit) as ended:
        run(command, [BYTES], "manta", tell)
    assert ended.value.code == 2
    assert "The argument is 'caf\\udce9', which is not UTF-8" in capsys.readouterr().err


def test_all_runs_in_a_folder_of_such_a_name(tmp_path: Path) -> None:
    home = tmp_path / BYTES
    (home / "texts").mkdir(parents=True)
    (home / "texts" / f"{BYTES}.txt").write_text("read")
    (home / "task.py").write_text(TASK)
    (home / "swarm.py").write_text(SWARM)
    terminal = Terminal(home)
    ports = f"{terminal.nodes} --user-port {terminal.users} --bulk-port {terminal.bulk}"
    started = terminal(f"manager start --background --host 127.0.0.1 --node-port {ports}")
    try:
        password = re.search(r"the password\s+(\S+)", started)
        assert password is not None
        terminal("sign-in --email admin@localhost --password-stdin", stdin=password[1])
        terminal("cluster create lab")
        token = terminal("node token lab").strip()
        terminal(f"config init n --manager-port {terminal.nodes} --allow-unsandboxed", program=NODE)
        with open(home / "nodes" / "n.toml", "a") as file:
            file.write('[datasets.mappings]\ntexts = "../texts"\n')
        terminal("start n --background", program=NODE, MANTA_NODE_TOKEN=token)
        ran = terminal(f"deploy --cluster lab --follow {home / 'swarm.py'}")
        assert "['read']" in ran
        assert "COMPLETED" in ran
    finally:
        terminal("stop n", program=NODE)
        terminal("manager stop")


@pytest.mark.parametrize("locale", ["C", "POSIX"])
def test_other_letters_run_in_the_locale_c(locale: str, tmp_path: Path) -> None:
    folder = tmp_path / "ünï"
    created = manta("new", folder, LC_ALL=locale)
    assert created.returncode == 0, created.stderr
    (folder / "task.py").write_text(TASK, "utf-8")
    (folder / "swarm.py").write_text(SWARM, "utf-8")
    (folder / "texts").mkdir()
    (folder / "texts" / "é.txt").write_text("läs", "utf-8")
    ran = manta(
        "run", folder / "swarm.py", "--nodes", 1, "--dataset", f"texts={folder / 'texts'}",
        LC_ALL=locale, MANTA_HOME=tmp_path / "home",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "['läs']" in ran.stdout + ran.stderr
