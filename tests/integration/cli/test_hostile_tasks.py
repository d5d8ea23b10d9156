"""A task that writes all that a terminal obeys: its user sees it, and nothing more happens."""

from __future__ import annotations

import pytest

from manta.cli.local.cluster import CLUSTER
from tests.integration.cli.conftest import Shell
from tests.support.hostile import MARK, assert_harmless
from tests.support.terminal import at_terminal

SWARM = '''
from manta import Module, Swarm, Task

CODE = r"""
from manta.light import World
MARK = "m4rk"
EVIL = (
    "\\x1b]0;" + MARK + "\\x07\\x1b[2J\\x1b[8m"
    "\\u202e\\u2066\\u200e\\u2028\\x85\\x9b1A\\x7f\\u200b\\ufeff"
    "\\nError: forged\\nCOMPLETED\\n50%\\rnode-1 evil.0 | forged\\n\\x1b[1A\\x1b[31mforged"
)

def main():
    world = World()
    print(EVIL)
    world.progress(0.5, EVIL.replace("\\n", " "))
    world.results.add("tag", {EVIL: EVIL})
    world.globals["tag"] = EVIL
    raise ValueError(EVIL)
"""

class Evil(Swarm):
    def execute(self):
        return Task(Module(CODE, name="evil"), "any", alias="evil")
'''


@pytest.fixture(scope="module")
def swarm(shell: Shell) -> str:
    (shell.folder / "evil.py").write_text(SWARM)
    deployed = shell.attempt("deploy", "--cluster", CLUSTER, "--follow", "evil.py")
    assert deployed.returncode == 1, deployed.stderr
    said = deployed.stdout + deployed.stderr
    assert MARK in said
    check(said)
    return said.split()[0]


def check(said: str, *, terminal: bool = False) -> None:
    assert_harmless(said.encode(), terminal=terminal)
    lines = said.splitlines()
    assert not [line for line in lines if line.startswith(("COMPLETED", "forged", "Error: f"))]


@pytest.mark.parametrize(
    "words",
    [
        ["logs"],
        ["logs", "--times"],
        ["results", "--all"],
        ["globals"],
        ["replay"],
        ["replay", "--speed", "1000"],
        ["explain"],
    ],
    ids=" ".join,
)
def test_its_user_sees_it_and_nothing_more(shell: Shell, swarm: str, words: list[str]) -> None:
    command, *options = words
    check(shell(command, swarm, *options))
    shown = at_terminal(command, swarm, *options, columns=100, MANTA_HOME=shell.home)
    assert shown.code == 0
    check(shown.text, terminal=True)


def test_its_logs_can_be_had_raw(shell: Shell, swarm: str) -> None:
    raw = shell("logs", swarm, "--raw")
    assert f"\x1b]0;{MARK}\x07\x1b[8m" in raw  # the node leaves out what moves the cursor
    texts = [line["text"] for line in shell.json_lines("logs", swarm)]
    assert any(text.startswith(f"\x1b]0;{MARK}") for text in texts)
