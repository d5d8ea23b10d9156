"""Which runner a node has, by its configuration and what there is on its machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from manta.node.config import parse
from manta.node.errors import LaunchError
from manta.node.isolation import landlock
from manta.node.runners.selection import choose_runner
from manta.node.state import StateFolder

DOCKER, BWRAP, LANDLOCK, LIMITS = ("docker",), ("bwrap",), ("landlock",), ("limits",)
NOWHERE = "unix:///nowhere/docker.sock"
REFUSED = "allow_unsandboxed is false, as it is unless it is set"
NO_ENGINE = f"there is no container engine at {NOWHERE}: start it"
NO_RUNSC = 'containers.runner is "gvisor", and the container engine has no runtime "runsc"'
NO_BWRAP = 'containers.runner is "bwrap", and bubblewrap is not installed (apt-get install'
NO_LANDLOCK = 'containers.runner is "landlock", and the kernel has no Landlock'
WITHOUT_IMAGES = ("bwrap", "landlock", "none")

CASES = [
    # runner, allow_unsandboxed, isolation; with an engine and bubblewrap, and Landlock, and
    # neither; without an engine
    (
        *("auto", "true", "", (*DOCKER, *BWRAP), (*DOCKER, *LANDLOCK), (*DOCKER, *LIMITS)),
        *(BWRAP, LANDLOCK, LIMITS),
    ),
    ("auto", "", "", *3 * [DOCKER], BWRAP, LANDLOCK, REFUSED),
    ("auto", "false", "", *3 * [DOCKER], BWRAP, LANDLOCK, "tasks run as plain processes"),
    (
        *("auto", "true", "bwrap", (*DOCKER, *BWRAP), DOCKER, DOCKER, BWRAP),
        *('isolation is "bwrap", and tasks would run at the level "landlock"',),
        *('isolation is "bwrap", and tasks would run at the level "limits"',),
    ),
    ("auto", "", "docker", *3 * [DOCKER], 'level "bwrap" here', 'level "landlock" here', REFUSED),
    ("docker", "true", "", *3 * [DOCKER], *3 * [NO_ENGINE]),
    ("docker", "false", "gvisor", *3 * ['the level "docker" here: let'], *3 * [NO_ENGINE]),
    ("auto", "", "gvisor", *3 * ['"docker" here (the container engine has no runtime'], *3 * [""]),
    ("gvisor", "", "", *3 * [NO_RUNSC], *3 * [NO_ENGINE]),
    ("bwrap", "", "", *2 * [BWRAP, NO_BWRAP, NO_BWRAP]),
    ("landlock", "", "", *2 * [LANDLOCK, LANDLOCK, NO_LANDLOCK]),
    ("limits", "true", "", *6 * [LIMITS]),
    ("limits", "true", "landlock", *6 * ['the level "limits" here']),
    ("limits", "", "", *6 * [REFUSED]),
    ("process", "true", "", *6 * [LIMITS]),
]


@pytest.fixture(scope="module", params=[True, False], ids=["engine", "none"])
def has_engine(request: pytest.FixtureRequest) -> bool:
    """Asks for what it needs, before a test is watched for leaks."""
    if request.param:
        request.getfixturevalue("engine")
    return bool(request.param)


@pytest.mark.parametrize("strongest", WITHOUT_IMAGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(case[:3]))
def test_what_tasks_run_in(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple[Any, ...],
    has_engine: bool,
    strongest: str,
) -> None:
    if has_engine:
        request.getfixturevalue("docker_host")
    else:
        monkeypatch.setenv("DOCKER_HOST", NOWHERE)
    if strongest == "bwrap":
        request.getfixturevalue("bubblewrap")
    else:
        monkeypatch.setenv("PATH", str(tmp_path))
    if strongest == "none":
        monkeypatch.setattr(landlock, "available", lambda: 0)
    wanted, allowed, least, *outcomes = case
    text = f'[network]\nmanager_host = "localhost"\n[containers]\nrunner = "{wanted}"\n'
    text += f"allow_unsandboxed = {allowed}\n" if allowed else ""
    text += f'isolation = "{least}"\n' if least else ""
    config = parse(text, tmp_path / "edge.toml", {})
    expected = outcomes[3 * (not has_engine) + WITHOUT_IMAGES.index(strongest)]
    folder = StateFolder(tmp_path / "state")
    folder.path.mkdir()
    if isinstance(expected, str):
        with pytest.raises(LaunchError) as raised:
            choose_runner(config, folder, "key", pytest.fail)
        assert expected in str(raised.value)
        return
    runner = choose_runner(config, folder, "key", pytest.fail)
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
