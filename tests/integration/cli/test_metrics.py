"""Metrics of a swarm that has ended, and of one that runs: as tables and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.testing.waiting import wait_until
from tests.integration.cli.conftest import Shell
from tests.support.terminal import at_terminal

PNG, PDF = b"\x89PNG", b"%PDF"


@pytest.fixture(scope="module")
def live(shell: Shell) -> Iterator[str]:
    """The id of a swarm that runs, and has logged some metrics."""
    swarm = shell.deploy("-p", "pause=600")
    wait_until(lambda: len(shell("metrics", swarm).splitlines()) == 2, 60)
    yield swarm
    shell("stop", swarm)


@pytest.mark.parametrize(("which", "rows"), [("finished", 4), ("live", 2)])
def test_a_table_has_a_row_for_each_entry(
    which: str, rows: int, shell: Shell, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    swarm = request.getfixturevalue(which)
    printed = shell("metrics", swarm, "--csv")
    found = list(csv.DictReader(io.StringIO(printed)))
    assert [row["loss"] for row in found] == ["0.5"] * rows
    assert {row["node_alias"] for row in found} == {"node-1", "node-2"}
    file = tmp_path / "logged.csv"
    assert shell("metrics", swarm, "--csv", "-o", file) == f"{file}: {rows} rows.\n"
    assert file.read_text() == printed


@pytest.mark.parametrize("which", ["finished", "live"])
def test_charts_of_characters_and_pictures(
    which: str, shell: Shell, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    swarm = request.getfixturevalue(which)
    lines = shell("plot", swarm).splitlines()
    assert lines[0] == "loss by iteration"
    assert lines[-1].endswith(" mean of 2")
    shown = shell.json("plot", swarm, "loss", "--by", "node")["graphs"][0]
    assert (shown["metric"], shown["axis"]) == ("loss", "iteration")
    iterations = [0, 1] if which == "finished" else [0]
    assert {c["label"]: c["x"] for c in shown["curves"]} == {
        "node-1": iterations,
        "node-2": iterations,
    }
    for suffix, begins in ((".png", PNG), (".pdf", PDF), (".svg", b"<?xml")):
        file = tmp_path / f"loss{suffix}"
        assert shell("plot", swarm, "loss", "-o", file) == f"{file}: loss.\n"
        assert file.read_bytes().startswith(begins)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["plot", "SWARM", "los"], Exit.NOT_FOUND, "Did you mean 'loss'?"),
        (["plot", "SWARM", "-o", "loss.gif"], Exit.USAGE, "is none of .png, .svg, .pdf"),
        (["plot", "SWARM", "-o", "no/loss.png"], Exit.LOCAL, "No such file or directory"),
        (["plot", "SWARM", "--x", "step"], Exit.USAGE, "draw it by iteration"),
        (["metrics", "SWARM", "--csv", "-f"], Exit.USAGE, "leave -f and --json out"),
        (["metrics", "SWARM", "-o", "a.csv"], Exit.USAGE, "-o needs --csv"),
        (["metrics", "SWARM", "--csv", "-o", "no/a.csv"], Exit.LOCAL, "No such file"),
    ],
)
def test_what_cannot_be_drawn_is_said_with_the_remedy(
    words: list[str], code: Exit, said: str, shell: Shell, finished: str
) -> None:
    done = shell.attempt(*(finished if word == "SWARM" else word for word in words))
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_chart_is_as_wide_as_the_terminal_and_in_its_characters(
    encoding: str, shell: Shell, finished: str
) -> None:
    shown = at_terminal(
        *("plot", finished, "--by", "node"),
        columns=50,
        MANTA_HOME=shell.home,
        NO_COLOR=1,
        PYTHONIOENCODING=encoding,
    )
    assert shown.code == Exit.OK
    lines = shown.text.splitlines()
    assert max(map(len, lines)) == 49
    assert shown.text.isascii() is (encoding == "ascii")
    assert ("+---" in shown.text, "└───" in shown.text) == (
        encoding == "ascii",
        encoding == "utf-8",
    )
