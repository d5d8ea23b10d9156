"""`manta metrics --to`: each record is sent once, and what cannot be sent is said."""

from __future__ import annotations

import pytest

from manta.console.exit_codes import Exit
from tests.integration.cli.conftest import Shell
from tests.support.events import scalars


def test_a_tracker_gets_each_record_once_however_often_it_is_sent(
    shell: Shell, finished: str
) -> None:
    folder = shell.folder / "runs"
    said = shell("metrics", finished, "--to", "tensorboard:runs")
    assert said == f"tensorboard:{folder}: 4 records of Measured sent.\n"
    once = sorted(scalars(folder))
    assert [(series, step, value) for series, step, value, _ in once] == [
        (f"loss/only.{index}/node-{index + 1}", step, 0.5) for index in (0, 1) for step in (0, 1)
    ]
    assert ": 0 records" in shell("metrics", finished, "--to", f"tensorboard:{folder}")
    assert sorted(scalars(folder)) == once


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "aim:x"], "'aim:x' is no tracker"),
        (["--to", "tensorboard:x", "--csv"], "leave the other options out"),
        (["--to", "tensorboard:x", "-f"], "leave the other options out"),
    ],
)
def test_what_cannot_be_sent_is_said(
    words: list[str], said: str, shell: Shell, finished: str
) -> None:
    done = shell.attempt("metrics", finished, *words)
    assert (done.returncode, done.stdout) == (Exit.USAGE, "")
    assert said in " ".join(done.stderr.split())
