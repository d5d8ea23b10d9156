"""Which runner a node has, by its configuration and whether there is an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.config import parse
from manta.node.errors import LaunchError
from manta.node.runners.selection import choose_runner
from manta.node.state import StateFolder
from tests.support.engine import TestEngine

BOTH, CONTAINERS, PROCESSES = ("docker", "process"), ("docker",), ("process",)
NOWHERE = "unix:///nowhere/docker.sock"

CASES = [
    # runner, allow_unsandboxed, with an engine, without one
    ("auto", "true", BOTH, PROCESSES),
    ("auto", "", CONTAINERS, "allow_unsandboxed is false, as it is unless it is set"),
    ("auto", "false", CONTAINERS, "without a container engine tasks run as plain processes"),
    ("docker", "true", CONTAINERS, f"there is no container engine at {NOWHERE}: start it"),
    ("docker", "false", CONTAINERS, f"there is no container engine at {NOWHERE}: start it"),
    ("process", "true", PROCESSES, PROCESSES),
    ("process", "", "allow_unsandboxed is false", "allow_unsandboxed is false"),
    ("process", "false", "allow_unsandboxed is false", "allow_unsandboxed is false"),
]


@pytest.mark.parametrize("has_engine", [True, False], ids=["engine", "none"])
@pytest.mark.parametrize(("wanted", "allowed", "with_one", "without"), CASES)
def test_what_tasks_run_in(
    docker_host: TestEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    allowed: str,
    with_one: tuple[str, ...] | str,
    without: tuple[str, ...] | str,
    has_engine: bool,
) -> None:
    if not has_engine:
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    text = f'[network]\nmanager_host = "localhost"\n[containers]\nrunner = "{wanted}"\n'
    text += f"allow_unsandboxed = {allowed}\n" if allowed else ""
    config = parse(text, tmp_path / "edge.toml", {})
    expected = with_one if has_engine else without
    folder = StateFolder(tmp_path / "state")
    if isinstance(expected, str):
        with pytest.raises(LaunchError) as raised:
            choose_runner(config, folder, "key")
        assert expected in str(raised.value)
        return
    runner = choose_runner(config, folder, "key")
    assert runner.names == expected
    assert runner.runs_in_image("python:3.10") is ("docker" in expected)
    assert runner.runs_in_image(None) is (expected == CONTAINERS)
    runner.close()


def test_copies_of_other_versions_are_removed(tmp_path: Path) -> None:
    from manta.node.runners.runtime_copy import runtime_copy

    (tmp_path / "runtime" / "of another version").mkdir(parents=True)
    folder = runtime_copy(tmp_path / "runtime")
    assert list((tmp_path / "runtime").iterdir()) == [folder]
    assert runtime_copy(tmp_path / "runtime") == folder
