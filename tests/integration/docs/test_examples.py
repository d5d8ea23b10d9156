"""Every example runs by the one command that it names, and what it says is true."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta.apis.results import Results
from manta.cli.loading import load_swarm
from manta.cli.local.cluster import CLUSTER, LocalCluster
from manta.testing.clusters import client, running

EXAMPLES = Path(__file__).parents[3] / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/swarm.py"))
Run = Callable[..., tuple[Results, dict[str, Any]]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 4) as cluster:
        yield cluster


@pytest.fixture
def run(cluster: LocalCluster) -> Iterator[Run]:
    """Results and globals of an example, once it has run."""
    with client(cluster) as api:

        def ran(name: str, **parameters: str) -> tuple[Results, dict[str, Any]]:
            file = str(EXAMPLES / name / "swarm.py")
            swarm = api.deploy_swarm(CLUSTER, load_swarm(file, parameters))
            ended = api.wait_swarm(swarm, timeout=90)
            assert ended.status == "COMPLETED", ended.reason
            tags = api.list_global_tags(swarm)
            return api.get_swarm_results(swarm), {
                tag: api.select_global(swarm, tag) for tag in tags
            }

        yield ran


def test_the_error_of_the_line_is_that_of_the_same_steps_in_one_process(tmp_path: Path) -> None:
    points = [np.loadtxt(EXAMPLES / "line" / f"points{i}.txt").T for i in range(3)]
    slope = 0.0
    for _ in range(5):
        slope -= np.mean([(x * (slope * x - y)).mean() for x, y in points])
    expected = [abs(slope * x - y).mean() for x, y in points]
    told = ran_by_its_command("line", tmp_path)["metrics"]
    assert [m["value"] for m in told if m["iteration"] == 5] == pytest.approx(expected)


def test_pipeline(run: Run) -> None:
    results, _ = run("pipeline")
    assert len(results("numbers")) == 3
    expected = [first + step for first in (0, 100, 200) for step in range(5)]
    assert results("summary").values() == [{"count": 15, "total": sum(expected)}]


def test_etl(run: Run) -> None:
    results, globals_ = run("etl")
    assert results("rows").values() == [8]
    assert {row["node"] for row in globals_["table"]} == {f"node-{n}" for n in range(1, 5)}
    for row in globals_["table"]:
        assert row["fahrenheit"] == pytest.approx(float(row["celsius"]) * 1.8 + 32)


def test_rounds(run: Run) -> None:
    results, globals_ = run("rounds", rounds="6")
    assert [r.value for r in results(5, "rounds")] == [6] * 4, "the objects lived on"
    for iteration in range(6):
        positions = [r.value for r in results(iteration, "position")]
        (spread,) = results(iteration, "spread").values()
        assert spread == pytest.approx(max(positions) - min(positions))
    last = [r.value for r in results(5, "position")]
    assert globals_["center"] == pytest.approx(sum(last) / 4)
    spreads = results("spread").values()
    assert spreads[-1] < spreads[0] / 10


def test_iterate(run: Run) -> None:
    results, globals_ = run("iterate", number="2")
    assert globals_["guess"] == pytest.approx(math.sqrt(2), abs=1e-12)
    guesses = results("guess").values()
    assert 3 < len(guesses) < 10
    assert abs(guesses[-1] - guesses[-2]) <= 1e-12 < abs(guesses[-2] - guesses[-3])


def test_hierarchy(run: Run) -> None:
    results, globals_ = run("hierarchy")
    assert sorted(r["nodes"] for r in results("regional").values()) == [1, 3]
    assert globals_["mean"] == pytest.approx((1 + 2 + 3 + 4) / 4)


def test_stateful(run: Run) -> None:
    _, globals_ = run("stateful", rounds="30")
    position, velocity = np.array([10.0, -10.0]), np.zeros((4, 2))
    for _ in range(30):
        velocity = 0.5 * velocity - 0.2 * (position - np.arange(4)[:, None])
        position = position + velocity.mean(axis=0)
    assert globals_["position"] == pytest.approx(position)


def test_adaptive(run: Run) -> None:
    results, _ = run("adaptive", rounds="2")
    first = [part["samples"] for part in results(0, "part").values()]
    assert first == [750] * 4, "equal shares before anything was measured"
    second = results(1, "part").values()
    assert abs(sum(part["samples"] for part in second) - 3000) <= 4
    assert {part["precision"] for part in second} == {"float32"}, "loopback is a good line"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_digits(run: Run) -> None:
    import torch

    results, globals_ = run("torch_digits", rounds="3")
    told = [r.value for r in results(2, "accuracy")]
    assert len(set(told)) == 1, "all have the same model"
    worker = module_of(EXAMPLES / "torch_digits" / "worker.py")
    _, _, x, y = worker.digits(0, 4)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
    model.load_state_dict(globals_["model"])
    accuracy = (model(x).argmax(1) == y).float().mean().item()
    assert accuracy == pytest.approx(told[0])
    assert accuracy > 0.85


def module_of(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("example_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    # Those that are not here have tests of their own, or pages that run them.
    sorted(
        set(NAMES)
        - {"cnn", "fl_digits", "hello", "hospitals", "liars", "line", "slow", "torch_digits"}
    ),
)
def test_the_command_at_its_top_runs_it(name: str, tmp_path: Path) -> None:
    assert ran_by_its_command(name, tmp_path)["status"] == "COMPLETED"


def test_the_chart_of_the_hospitals_is_drawn(tmp_path: Path) -> None:
    """What they learn, alone and together, the page of them shows."""
    subprocess.run(
        [sys.executable, EXAMPLES / "hospitals" / "compare.py", tmp_path / "chart.svg"],
        capture_output=True,
        env={**os.environ, "MANTA_HOME": str(tmp_path)},
        check=True,
        timeout=100,
    )
    assert "together, by FedAvg" in (tmp_path / "chart.svg").read_text()


def ran_by_its_command(name: str, home: Path) -> Any:
    text = (EXAMPLES / name / "swarm.py").read_text()
    command = re.search(r'manta run (examples/(?:[^\n\\]|\\\n)+?)(?:"""|\n)', text)
    assert command is not None
    kept = {key: value for key, value in os.environ.items() if not key.startswith("MANTA_")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "manta",
            "run",
            *shlex.split(command[1].replace("\\\n", " ")),
            "--json",
        ],
        cwd=EXAMPLES.parent,
        env={**kept, "MANTA_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
