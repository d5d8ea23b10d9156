"""The examples of meshes run as they say, and draw what they found."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "mesh"
PNG = b"\x89PNG\r\n"
pytestmark = pytest.mark.timeout(300)


def ran(name: str, peers: int, *arguments: object) -> str:
    command = [sys.executable, "-m", "manta", "mesh", "run", EXAMPLES / f"{name}.py"]
    words = map(str, [*command, "--peers", peers, "--", *arguments])
    done = subprocess.run(list(words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pytest.importorskip("matplotlib")
    return tmp_path / "picture.png"


def test_gossip_comes_together_as_the_topology_lets_it(picture: Path) -> None:
    out = ran("gossip", 6, "--rounds", 8, "--picture", picture)
    errors = {name: float(error) for name, error in re.findall(r"\| ([a-z-]+).* is (\S+)", out)}
    assert errors["full"] < 1e-9 < errors["torus"] < errors["ring"] < errors["star"] < 2, out
    assert picture.read_bytes().startswith(PNG)


def test_neighbors_learn_what_none_could_alone(picture: Path) -> None:
    pytest.importorskip("sklearn")
    out = ran("sgd", 4, "--rounds", 40, "--picture", picture)
    together, alone = map(float, re.findall(r"0\.\d{3}", out)[:2])
    assert together > alone + 0.2, out
    assert picture.read_bytes().startswith(PNG)


def test_a_ring_by_hand_has_the_sum_of_all_reduce(picture: Path) -> None:
    out = ran("ring", 3, "--most", 12, "--times", 1, "--picture", picture)
    assert out.count("the same sum twice") == 2
    assert picture.read_bytes().startswith(PNG)


def test_two_thirds_of_the_peers_go_on(picture: Path) -> None:
    out = ran("third", 3, "--steps", 20, "--picture", picture)
    assert "2 peers are left, at a distance of" in out
    assert out.count("goes on with 2") == 2, "each hears of it once"
    assert picture.read_bytes().startswith(PNG)


def test_another_peer_leads_once_the_leader_has_ended() -> None:
    out = ran("leader", 3)
    assert out.count("I lead, epoch") == 1
    assert out.count("I lead now") == 1
    assert "all 2 that are left follow in one epoch: True" in out


def test_items_are_done_by_whoever_has_time(picture: Path) -> None:
    out = ran("sharing", 3, "--items", 12, "--longest", 0.01, "--picture", picture)
    assert f"the sum of the squares is {sum(n * n for n in range(12))}" in out
    assert sum(map(int, re.findall(r"did (\d+)", out))) == 12
    assert picture.read_bytes().startswith(PNG)


def test_work_goes_to_who_has_room() -> None:
    out = ran("market", 3)
    assert "12 of 12 frames are done, 0 unplaced" in out
    assert sum(map(int, re.findall(r"renders (\d+)", out))) == 12
