"""Two runs of a swarm whose code, parameters and metrics differ in known places."""

from __future__ import annotations

import pytest

from manta.console.exit_codes import Exit
from tests.integration.cli.conftest import SWARM, Shell

OTHER = SWARM.replace('"loss": 0.5', '"loss": 0.25, "extra": float("nan")')
OTHER = OTHER.replace('"rate", 0.1', '"rate", 0.2').replace(
    "Task(Module", "Task(retries=2, module=Module"
)


@pytest.fixture(scope="module")
def other(shell: Shell) -> str:
    (shell.folder / "other.py").write_text(OTHER)
    return shell("deploy", "--cluster", "local", "--follow", "other.py").split()[0]


def test_what_differs_is_found_and_nothing_else(shell: Shell, finished: str, other: str) -> None:
    found = shell.json("compare", finished, other)
    assert [run["swarm_id"] for run in found["runs"]] == [finished, other]
    settings = {one["name"]: (one["first"], one["second"]) for one in found["settings"]}
    assert settings.pop("task only: retries", None) == (0, 2)
    assert set(settings) <= {"seconds", "seed"}
    assert found["globals"] == [{"tag": "rate", "first": 0.1, "second": 0.2, "differs": True}]
    [module] = found["modules"]
    assert (module["module"], module["status"]) == ("only", "changed")
    assert [line for line in module["diff"] if line.startswith(("-  ", "+  "))] == [
        '-    world.log_metrics({"loss": 0.5})',
        '+    world.log_metrics({"loss": 0.25, "extra": float("nan")})',
    ]
    figures = {
        (one["metric"], one["figure"]): (one["first"], one["second"]) for one in found["metrics"]
    }
    assert figures == {
        **{("loss", one): (0.5, 0.25) for one in ("last", "least", "greatest", "mean")},
        **{("extra", one): (None, None) for one in ("last", "least", "greatest", "mean")},
    }


def test_it_is_shown_side_by_side(shell: Shell, finished: str, other: str) -> None:
    shown = shell("compare", finished, other)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "task only: retries 0 2" in lines
    assert "rate 0.1000 0.2000" in lines
    assert "MODULE only: changed" in lines
    assert "loss, last 0.50 0.25 -0.25" in lines


def test_a_run_is_the_same_as_itself(shell: Shell, finished: str) -> None:
    found = shell.json("compare", finished, finished)
    assert found["settings"] == []
    assert [one["differs"] for one in found["globals"]] == [False]
    assert [(one["status"], one["diff"]) for one in found["modules"]] == [("same", [])]
    assert {one["first"] for one in found["metrics"]} == {0.5}


def test_a_run_that_is_not_there(shell: Shell, finished: str) -> None:
    done = shell.attempt("compare", finished, "nowhere")
    assert done.returncode == Exit.NOT_FOUND
    assert "nowhere" in done.stderr
