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
        ("sdk swarm list-ids", "manta ps"),
        ("sdk swarm list --cluster-id lab", "manta ps"),
        ("sdk swarm tasks 3f2a", "manta explain 3f2a"),
        ("sdk swarm start 3f2a", "manta deploy --cluster CLUSTER FILE"),
        ("sdk swarm stop 3f2a --force", "manta stop 3f2a"),
        ("sdk swarm remove --force 3f2a", "manta rm 3f2a"),
        ("sdk swarm monitor 3f2a", "manta logs -f 3f2a"),
        ("sdk --profile lab swarm list", "manta ps"),
        ("sdk results get 3f2a --tag loss", "manta results 3f2a"),
        ("sdk results list-tags 3f2a", "manta results 3f2a"),
        ("sdk results stream 3f2a", "manta results 3f2a --wait"),
        ("sdk results export 3f2a --output out", "manta pull 3f2a"),
        ("sdk globals get 3f2a --tag latest", "manta globals 3f2a"),
        ("sdk globals export 3f2a", "manta pull 3f2a"),
        ("sdk logs get 3f2a --type task --lines 50", "manta logs 3f2a"),
        ("sdk logs stream 3f2a", "manta logs -f 3f2a"),
        ("sdk module list-ids", "manta module list"),
        ("sdk module push worker.py --module-id m1", "manta module push worker.py"),
        ("sdk module update m1 worker.py", "manta module push worker.py"),
        ("sdk module get m1 --output f", "manta module show m1"),
        ("sdk module delete m1 --force", "manta module rm m1"),
        ("sdk cluster show c1", "manta cluster show c1"),
        ("sdk cluster nodes c1", "manta node list c1"),
        ("sdk nodes list --cluster-id c1", "manta node list CLUSTER"),
        ("sdk nodes get n1", "manta node show n1"),
        ("sdk user status", "manta user show"),
        ("sdk user list-clusters", "manta cluster list"),
        ("sdk user list-swarms", "manta ps"),
        ("sdk config use lab", "manta config use lab"),
        ("sdk config edit lab", "manta config set KEY VALUE"),
        ("sdk config delete lab", "manta config rm lab"),
        ("status", "manta manager status"),
        ("install wizard", "pip install 'manta-swarm[node,manager]'"),
        ("doc quickstart --open", "manta --help"),
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
    known = [known for table in tables for known in table.values()]
    named = [known[1] if isinstance(known, tuple) else known for known in known]
    named += [command for _, command in former._GROUPS.values()]
    for command in named:
        program, *words = [word for word in command.split() if word.islower() and word[0] != "-"]
        if program == "pip":
            continue
        shown = CliRunner().invoke(cli, [*words, "--help"])
        assert shown.exit_code == 0, command
        for place in re.findall(
            r"(?:--[a-z]+|\b[A-Z]+\b)", command.replace("--cluster CLUSTER", "--cluster")
        ):
            assert place in shown.output, command
