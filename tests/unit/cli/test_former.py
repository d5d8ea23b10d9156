"""Commands of Manta 0.6 are answered with those that exist here."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner

from manta.cli import former
from manta.cli.main import cli


@pytest.mark.parametrize(
    ("words", "here"),
    [
        ("sdk", "manta --help"),
        ("sdk swarm list", "manta ps"),
        ("sdk swarm stop 3f2a", "manta stop 3f2a"),
        ("sdk swarm deploy swarm.py", "manta deploy --cluster CLUSTER swarm.py"),
        ("sdk swarm deploy lab swarm.py", "manta deploy --cluster lab swarm.py"),
        ("sdk config init", "manta sign-in"),
        ("sdk cluster list", "manta cluster list"),
        ("sdk module upload worker.py", "manta module push worker.py"),
        ("sdk results 3f2a", "manta results 3f2a"),
        ("sdk whatever this was", "manta --help"),
        ("swarm list --all", "manta ps"),
        ("swarm logs 3f2a", "manta logs 3f2a"),
        ("node start", "manta_node start"),
        ("node start edge", "manta_node start edge"),
        ("node status", "manta_node status"),
        ("node logs edge", "manta_node logs edge"),
        ("node config init", "manta_node config init"),
    ],
)
def test_a_former_command_is_answered(words: str, here: str) -> None:
    done = CliRunner().invoke(cli, words.split())
    assert done.exit_code == 2
    assert f"`{here}`" in done.output
    assert "Coming from Manta 0.6" in done.output


def test_what_never_was_a_command_is_not() -> None:
    for words in (["sdkk"], ["node", "strt"], ["deplyo"]):
        assert "0.6" not in CliRunner().invoke(cli, words).output


def test_every_command_that_is_named_exists() -> None:
    tables = [table for table, _ in former._GROUPS.values()]
    named = [command for table in tables for command in table.values()]
    named += [command for _, command in former._GROUPS.values()]
    named += former._ALONE.values()
    for command in named:
        words = [word for word in command.split() if word.islower() and word[0] != "-"]
        shown = CliRunner().invoke(cli, [*words, "--help"])
        assert shown.exit_code == 0, command
        for place in re.findall(
            r"(?:--[a-z]+|\b[A-Z]+\b)", command.replace("--cluster CLUSTER", "--cluster")
        ):
            assert place in shown.output, command
