from __future__ import annotations

import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest

from manta.roster.topologies import Topology

FILE = Path(__file__).parents[3] / "examples" / "mesh" / "averaging.py"
TOPOLOGIES = ["full", "ring", "star", "torus", "random-regular:4:1"]
SIZE = 16
VALUES = {rank: float(rank * rank % 7) for rank in range(SIZE)}
MEAN = sum(VALUES.values()) / SIZE


@pytest.fixture(scope="module")
def averaging() -> ModuleType:
    spec = importlib.util.spec_from_file_location("averaging", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", TOPOLOGIES)
def test_the_mean_stays_and_the_error_goes_to_nothing(averaging: ModuleType, text: str) -> None:
    topology, values = Topology.of(text), VALUES
    for _ in range(5):
        values = averaging.round_of(topology, values)
        assert sum(values.values()) / SIZE == pytest.approx(MEAN)
    errors = averaging.errors(topology, VALUES, 400)
    assert all(after <= before + 1e-12 for before, after in pairwise(errors))
    assert errors[-1] < 1e-6 * errors[0]


def test_a_full_topology_needs_one_round(averaging: ModuleType) -> None:
    assert averaging.errors(Topology.of("full"), VALUES, 1)[-1] == pytest.approx(0)


def test_more_and_longer_links_are_faster(averaging: ModuleType) -> None:
    after = [
        averaging.errors(Topology.of(text), VALUES, 8)[-1] for text in ("full", "torus", "ring")
    ]
    assert after == sorted(after)


def test_whoever_is_alone_keeps_its_value(averaging: ModuleType) -> None:
    assert averaging.errors(Topology.of("ring"), {0: 3.0}, 2) == [0, 0, 0]


def test_its_picture_is_drawn(tmp_path: Path) -> None:
    target = tmp_path / "expected.svg"
    subprocess.run([sys.executable, FILE.with_name("expected.py"), target], check=True)
    text = target.read_text()
    ElementTree.fromstring(text)
    for name in ("ring", "star", "torus", "random-regular", "full"):
        assert f">{name}</text>" in text
