"""Real shells complete what there is."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, get_completion_class

from manta.cli.completion import _fitting
from manta.cli.local.cluster import CLUSTER
from manta.cli.main import cli
from manta.console.completion import variable
from manta.manager.quotas.table import Quota
from tests.integration.cli.conftest import Shell
from tests.support.terminal import program_at_terminal

SHELLS = {
    "bash": """
        PATH="$1:$PATH"; eval "$(manta completion bash)"
        words() {
            COMP_WORDS=("$@" ""); COMP_CWORD=$#; COMPREPLY=()
            _manta_completion manta; echo "${COMPREPLY[@]}"
        }
    """,
    "zsh": """
        PATH="$1:$PATH"; compdef() { : }; eval "$(manta completion zsh)"
        _describe() { offered+=("${(@)${(@P)3}%%:*}") }
        compadd() { local last=${@[-1]}; offered+=("${(@P)last}") }
        compset() { : }
        words() {
            local -a words=("$@" "") offered=(); local -i CURRENT=$(($# + 1))
            _manta_completion; echo "${offered[@]}"
        }
    """,
    "fish": """
        set PATH $argv[1] $PATH; manta completion fish | source
        function words
            echo (complete --do-complete "$argv " | string split --fields 1 \\t)
        end
    """,
}


class Completion:
    """A real shell, asked what it would offer behind some words."""

    def __init__(self, shell: str, **environment: str) -> None:
        self.command = [shell, "-c", SHELLS[shell], *([] if shell == "fish" else [shell])]
        kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
        self.environment = {**kept, **environment}

    def __call__(self, *questions: str, patience: float = 40.0) -> list[str]:
        """A line for each; asked again where none came, for a busy machine gives up in time."""
        deadline = time.monotonic() + patience
        answers = dict.fromkeys(questions, "")
        while missing := [question for question, answer in answers.items() if not answer]:
            answers |= zip(missing, self._ask(missing), strict=True)
            if time.monotonic() > deadline:
                break
        return list(answers.values())

    def _ask(self, questions: Sequence[str]) -> list[str]:
        command = list(self.command)
        command[2] += "".join(f"words {question}\n" for question in questions)
        done = subprocess.run(
            [*command, str(Path(sys.executable).parent)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == ""
        return done.stdout.splitlines()


@pytest.mark.parametrize("shell_name", SHELLS)
def test_shells_complete_what_there_is(shell: Shell, finished: str, shell_name: str) -> None:
    if shutil.which(shell_name) is None:
        pytest.skip(f"{shell_name} is not installed")
    shell("module", "push", "--name", "kept", "swarm.py")
    complete = Completion(shell_name, MANTA_HOME=str(shell.home))
    there = {
        "manta ps --cluster": CLUSTER,
        "manta cluster show": CLUSTER,
        "manta ps --profile": "default",
        "manta node show": "node-1 node-2",
        "manta node links": "node-1 node-2",
        f"manta logs {finished} --node": "node-1 node-2",
        f"manta logs {finished} --task": "only",
        f"manta results {finished} --tag": "array small",
        f"manta globals {finished} --tag": "last rate",
        "manta user show": "user@localhost",
        "manta role grant user@localhost": "operator owner researcher viewer",
        "manta module show": "kept",
        "manta quota set": " ".join(sorted(Quota)),
    }
    found: dict[str, str] = {}
    deadline = time.monotonic() + 80
    while missing := [question for question in there if found.get(question) != there[question]]:
        # Who gets nothing in time from a machine that is busy presses the key again.
        answers = complete(*missing)
        found |= zip(missing, (" ".join(sorted(one.split())) for one in answers), strict=True)
        if time.monotonic() > deadline:
            break
    assert found == there
    (swarms,) = complete("manta logs")
    assert finished in swarms.split()


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("module", "words", "kind"),
    [
        ("manta", "run swa", "file"),
        ("manta", "deploy --cluster local swa", "file"),
        ("manta", "check swa", "file"),
        ("manta", "module push wor", "file"),
        ("manta", "manager restore back", "file"),
        ("manta", "manager start --home fol", "dir"),
        ("manta_node", "start ed", "edge"),
        ("manta_node", "do", "doctor"),
    ],
)
def test_files_complete_where_a_file_is_meant(
    tmp_path: Path, shell_name: str, module: str, words: str, kind: str
) -> None:
    nodes = tmp_path / "nodes"
    nodes.mkdir()
    (nodes / "edge.toml").write_text("")
    count = len(words.split())
    environment = {
        "MANTA_HOME": str(tmp_path),
        f"_{module.upper()}_COMPLETE": f"{shell_name}_complete",
        "COMP_WORDS": f"{module} {words}",
        "COMP_CWORD": words.split()[-1] if shell_name == "fish" else str(count),
    }
    done = subprocess.run(
        [Path(sys.executable).with_name(module)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert kind in re.split(r"[,\t\n]", done.stdout)


INTERACTIVE = {
    "bash": ("bash --norc --noprofile -i", 'eval "$(manta completion bash)"'),
    "zsh": ("zsh -f -i", 'autoload -Uz compinit; compinit -u -D; eval "$(manta completion zsh)"'),
    "fish": ("fish --no-config -i", "manta completion fish | source"),
}


@pytest.mark.parametrize("shell_name", INTERACTIVE)
def test_what_is_behind_an_equals_sign_completes(tmp_path: Path, shell_name: str) -> None:
    if shutil.which(shell_name) is None:
        pytest.skip(f"{shell_name} is not installed")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "node0.npz").touch()
    command, set_up = INTERACTIVE[shell_name]
    lines = [
        ("manta run f.py --dataset d=sh", "d=shards/"),
        ("manta run --dataset=d=shards/n", "--dataset=d=shards/node0.npz"),
        ("manta manager start --home=sha", "--home=shards/"),
        ("manta run --runner=do", "--runner=docker"),
    ]
    ready, typed = "ready", f"cd {tmp_path}; {set_up}; echo rea''dy\n"
    talk = [("$ " if shell_name == "bash" else "", typed)]
    for line, completed in lines:
        talk.append((ready, f"{line}\t"))
        ready = completed
        talk.append((ready, "\x15echo a''gain\n"))
        ready = "again"
    talk.append((ready, "exit\n"))
    environment = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "dumb",
        "PS1": "$ ",
        **dict.fromkeys(("HOME", "MANTA_HOME"), tmp_path),
    }
    shown = program_at_terminal(command.split(), talk, 200, **environment)
    assert shown.text.count("again") == len(lines)


@pytest.mark.parametrize("program", ["manta", "manta_node"])
@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_both_commands_print_their_script(program: str, shell_name: str) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(program), "completion", shell_name],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_{program.upper()}_COMPLETE={shell_name}_complete" in done.stdout


def test_what_nobody_knows_completes_to_nothing(shell: Shell, tmp_path: Path) -> None:
    questions = ("manta logs", "manta ps --cluster", "manta logs nobody --task")
    complete = Completion("bash", MANTA_HOME=str(shell.home))
    assert complete("manta cluster create", "manta logs nobody --task", patience=0) == [""] * 2
    with socket.create_server(("127.0.0.1", 0)) as mute:  # it accepts and says nothing
        where = {"MANTA_HOST": "127.0.0.1", "MANTA_PORT": str(mute.getsockname()[1])}
        complete = Completion("bash", MANTA_HOME=str(shell.home), **where)
        assert complete(*questions, patience=0) == [""] * 3
    complete = Completion("bash", MANTA_HOME=str(tmp_path))
    assert complete(*questions, "manta ps --profile", patience=0) == [""] * 4


NAMES = [
    "plain-1", "a b", "$(touch ran)", "`touch ran`", "*", "?.py", "x;touch ran", "it's", 'say "so"',
    "back\\slash", "größe", "a,b", "~root", "#1", "!!", "--help", "d=shards/x", "<in>out|&",
]  # fmt: skip


def test_bash_takes_a_name_as_it_is_and_runs_nothing_of_it(tmp_path: Path) -> None:
    kind = get_completion_class("bash")
    assert kind is not None
    made = kind(cli, {}, "manta", variable("manta"))
    offered = "\n".join(made.format_completion(CompletionItem(name)) for name in NAMES)
    (tmp_path / "offered").write_text(f"{offered}\n")
    (tmp_path / "manta").write_text(f"#!/bin/sh\ncat {tmp_path}/offered\n")
    (tmp_path / "manta").chmod(0o700)
    script = """
        PATH="$1:$PATH"; eval "$2"; cd "$1"
        COMP_WORDS=(manta ""); COMP_CWORD=1; COMPREPLY=()
        _manta_completion manta
        for reply in "${COMPREPLY[@]}"; do eval "printf '%s\\n' $reply"; done
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(tmp_path), made.source()],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == NAMES
    assert not (tmp_path / "ran").exists()


def test_a_name_that_is_no_word_for_a_shell_is_not_offered() -> None:
    items = [CompletionItem(name, help=name) for name in ("ok", "o\nk", "o\x1b[2J", "o\u202ek")]
    assert [item.value for item in _fitting(items, "o")] == ["ok"]
    (item,) = _fitting([CompletionItem("ok", help="\x1b[31m\n")], "")
    assert item.help == r"\x1b[31m\n"
