"""Which runner a node has, by its configuration and what there is on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manta.node.config import parse
from manta.node.errors import LaunchError
from manta.node.runners.selection import choose_runner
from manta.node.state import StateFolder

DOCKER, BWRAP, LIMITS = ("docker",), ("bwrap",), ("limits",)
NOWHERE = "unix:///nowhere/docker.sock"
REFUSED = "allow_unsandboxed is false, as it is unless it is set"
NO_ENGINE = f"there is no container engine at {NOWHERE}: start it"
NO_BWRAP = 'containers.runner is "bwrap", and bubblewrap is not installed (apt-get install'

CASES = [
    # runner, allow_unsandboxed, isolation; with both, an engine, bubblewrap, none
    ("auto", "true", "", (*DOCKER, *BWRAP), (*DOCKER, *LIMITS), BWRAP, LIMITS),
    ("auto", "", "", DOCKER, DOCKER, BWRAP, REFUSED),
    ("auto", "false", "", DOCKER, DOCKER, BWRAP, "tasks run as plain processes"),
    ("auto", "true", "bwrap", (*DOCKER, *BWRAP), DOCKER, BWRAP, 'isolation is "bwrap", and tasks'),
    ("auto", "", "docker", DOCKER, DOCKER, 'the level "bwrap" here', REFUSED),
    ("docker", "true", "", DOCKER, DOCKER, NO_ENGINE, NO_ENGINE),
    ("docker", "false", "gvisor", *2 * ['the level "docker" here'], NO_ENGINE, NO_ENGINE),
    ("bwrap", "", "", BWRAP, NO_BWRAP, BWRAP, NO_BWRAP),
    ("limits", "true", "", *4 * [LIMITS]),
    ("limits", "true", "landlock", *4 * ['the level "limits" here']),
    ("limits", "", "", *4 * [REFUSED]),
    ("process", "true", "", *4 * [LIMITS]),
]


@pytest.fixture(scope="module", params=[True, False], ids=["engine", "none"])
def has_engine(request: pytest.FixtureRequest) -> bool:
    """Asks for what it needs, before a test is watched for leaks."""
    if request.param:
        request.getfixturevalue("engine")
    return bool(request.param)


@pytest.mark.parametrize("has_bwrap", [True, False], ids=["bwrap", "none"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[:3]))
def test_what_tasks_run_in(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[Any, ...],
    has_engine: bool,
    has_bwrap: bool,
) -> None:
    if has_engine:
        request.getfixturevalue("docker_host")
    else:
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    if has_bwrap:
        request.getfixturevalue("bubblewrap")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    wanted, allowed, least, *outcomes = case
    text = f'[network]\nmanager_host = "localhost"\n[containers]\nrunner = "{wanted}"\n'
    text += f"allow_unsandboxed = {allowed}\n" if allowed else ""
    text += f'isolation = "{least}"\n' if least else ""
    config = parse(text, tmp_path / "edge.toml", {})
    expected = outcomes[2 * (not has_engine) + (not has_bwrap)]
    folder = StateFolder(tmp_path / "state")
    if isinstance(expected, str):
        with pytest.raises(LaunchError) as raised:
            choose_runner(config, folder, "key")
        assert expected in str(raised.value)
        return
    runner = choose_runner(config, folder, "key")
    assert runner.names == expected
    assert runner.runs_in_image("python:3.10") is ("docker" in expected)
    assert runner.runs_in_image(None) is (expected == DOCKER)
    runner.close()


def test_copies_of_other_versions_are_removed(tmp_path: Path) -> None:
    from manta.node.runners.runtime_copy import runtime_copy

    (tmp_path / "runtime" / "of another version").mkdir(parents=True)
    folder = runtime_copy(tmp_path / "runtime")
    assert list((tmp_path / "runtime").iterdir()) == [folder]
    assert runtime_copy(tmp_path / "runtime") == folder
