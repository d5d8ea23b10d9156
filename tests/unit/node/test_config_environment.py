from __future__ import annotations

from pathlib import Path

import pytest

from manta.node.cli.environment import from_environment, overruled
from manta.node.config import NodeConfig, parse
from manta.node.errors import VariableError


def test_every_variable_arrives_in_the_configuration() -> None:
    environment = {
        "MANTA_NODE_TOKEN": "secret",
        "MANTA_NODE_ALIAS": "edge",
        "MANTA_NODE_ID": "alias",
        "MANTA_NODE_MANAGER_HOST": "manager.lan",
        "MANTA_NODE_MANAGER_PORT": "6001",
        "MANTA_NODE_RUNNER": "bwrap",
        "MANTA_NODE_DEFAULT_IMAGE": "python:3.12-slim",
        "MANTA_NODE_ALLOW_UNSANDBOXED": "True",
        "MANTA_NODE_GPU_ENABLED": "no",
        "MANTA_NODE_MAX_CONCURRENT_TASKS": "3",
        "MANTA_NODE_RESERVE_CPU_PERCENT": "10",
        "MANTA_NODE_RESERVE_MEMORY_MB": "128",
        "MANTA_NODE_SCRATCH_MB": "100",
        "MANTA_NODE_VALUE_MEMORY_MB": "200",
        "MANTA_NODE_LOG_LEVEL": "DEBUG",
        "MANTA_NODE_DATASETS": "digits=/data/digits.npz, pictures=/data/pictures",
        "MANTA_NODE_LABELS": "room=lab-3",
        "PATH": "/bin",
    }
    text = from_environment(environment)
    assert text is not None
    assert "secret" not in text
    config = parse(text, Path("/manta/nodes/default.toml"), environment)
    assert (config.token, config.alias, config.id_mode) == ("secret", "edge", "alias")
    assert config.manager_address == "tcp://manager.lan:6001"
    assert (config.runner, config.allow_unsandboxed, config.gpu_enabled) == ("bwrap", True, False)
    assert config.default_image == "python:3.12-slim"
    assert config.max_concurrent_tasks == 3
    assert config.reserve_cpu_percent == 10
    assert config.reserve_memory == 128 * 1024 * 1024
    assert config.scratch == 100 * 1024 * 1024
    assert config.value_memory == 200 * 1024 * 1024
    assert config.log_level == "DEBUG"
    assert config.datasets == {
        "digits": Path("/data/digits.npz"),
        "pictures": Path("/data/pictures"),
    }
    assert config.labels == {"room": "lab-3"}


def test_without_a_variable_there_is_no_configuration() -> None:
    assert (
        from_environment({"PATH": "/bin", "MANTA_HOME": "/manta", "MANTA_NODE_ALIAS": " "}) is None
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MANTA_NODE_TOKN", "x", "did you mean MANTA_NODE_TOKEN?"),
        ("MANTA_NODE_ZZZ", "x", "is not a variable that a node knows"),
        ("MANTA_NODE_MANAGER_PORT", "high", "give a whole number"),
        ("MANTA_NODE_GPU_ENABLED", "maybe", "give true or false"),
        ("MANTA_NODE_DATASETS", "digits", "give NAME=VALUE"),
        ("MANTA_NODE_LABELS", "=x", "give NAME=VALUE"),
        ("MANTA_NODE_MANAGER_HOST", "bad/host", "it must be a host's name or address"),
        ("MANTA_NODE_MAX_CONCURRENT_TASKS", "-1", "it must be"),
    ],
)
def test_a_variable_that_cannot_be_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(VariableError) as refused:
        from_environment({"MANTA_NODE_TOKEN": "t", name: value})
    assert name in str(refused.value)
    assert words in str(refused.value)


def made(tmp_path: Path, **environment: str) -> NodeConfig:
    text = from_environment(environment)
    assert text is not None
    path = tmp_path / "default.toml"
    path.write_text(text)
    return parse(text, path, environment)


GIVEN = {
    "MANTA_NODE_TOKEN": "t",
    "MANTA_NODE_MANAGER_HOST": "manager.lan",
    "MANTA_NODE_DATASETS": "digits=/data/d.npz",
}


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"MANTA_NODE_ALLOW_UNSANDBOXED": "true"}, "MANTA_NODE_ALLOW_UNSANDBOXED says"),
        ({"MANTA_NODE_MANAGER_HOST": "other.lan"}, "MANTA_NODE_MANAGER_HOST says"),
        ({"MANTA_NODE_DATASETS": "digits=/d.npz"}, "MANTA_NODE_DATASETS says something else: corr"),
        ({"MANTA_NODE_LABELS": "room=1", "MANTA_NODE_LOG_LEVEL": "DEBUG"}, "MANTA_NODE_LOG_LEVEL"),
        ({"MANTA_NODE_TOKN": "x"}, "did you mean MANTA_NODE_TOKEN?"),
        ({"MANTA_NODE_MANAGER_PORT": "high"}, "give a whole number"),
    ],
)
def test_variables_that_say_something_else_later_are_named(
    tmp_path: Path, now: dict[str, str], said: str
) -> None:
    config = made(tmp_path, **GIVEN)
    told = overruled(config, {**GIVEN, **now})
    assert str(config.path) in told
    assert said in told


@pytest.mark.parametrize(
    "now", [GIVEN, {**GIVEN, "MANTA_NODE_TOKEN": "another"}, {}, {"MANTA_NODE_TOKEN": "t"}]
)
def test_variables_that_say_the_same_or_nothing_are_not(
    tmp_path: Path, now: dict[str, str]
) -> None:
    assert overruled(made(tmp_path, **GIVEN), now) == ""


def test_a_configuration_of_ones_own_is_not_compared_with_variables(tmp_path: Path) -> None:
    config = made(tmp_path, **GIVEN)
    config.path.write_text(config.path.read_text().partition("\n")[2])
    assert overruled(config, {**GIVEN, "MANTA_NODE_MANAGER_HOST": "other.lan"}) == ""
