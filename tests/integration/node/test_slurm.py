"""The recipe for Slurm (docs/node.md), with a Slurm of one machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta import Module, Swarm, Task
from manta.testing import wait_until
from tests.integration.node.conftest import HOST, Lab, lab, port
from tests.support.slurm import Slurm, lacking, slurm

__all__ = ["lab"]

pytestmark = pytest.mark.timeout(240)

RECIPE = Path(__file__).parents[3] / "examples" / "slurm" / "node.sbatch"
WAITS = """
import os, time
def main():
    print("runs", flush=True)
    while not os.path.exists("{until}"):
        time.sleep(0.02)
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Slurm]:
    if why := lacking():
        if os.environ.get("MANTA_TEST_SLURM") == "required":
            pytest.fail(why)
        pytest.skip(why)
    with slurm(tmp_path) as made:
        yield made


@pytest.mark.parametrize("lab", [0], indirect=True)
def test_a_job_is_a_node_that_drains_before_its_time_is_over_and_leaves_nothing(
    lab: Lab, machine: Slurm, tmp_path: Path
) -> None:
    until, scratch = tmp_path / "until", tmp_path / "scratch"
    scratch.mkdir()
    api = lab.api()
    said = tmp_path / "job.out"
    job = machine(
        *("sbatch", "--parsable", "--time=5", f"--output={said}", f"--chdir={tmp_path}", RECIPE),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        SLURM_TMPDIR=str(scratch),
        MANTA_NODE_TOKEN=api.create_node_token("lab"),
        MANTA_NODE_MANAGER_HOST=HOST,
        MANTA_NODE_MANAGER_PORT=str(port(lab.file.nodes)),
        MANTA_NODE_RUNNER="limits",
        MANTA_NODE_ALLOW_UNSANDBOXED="true",
    )
    alias = f"manta-node-{job}"

    def status() -> str:
        found = [node.status for node in api.list_nodes("lab") if node.alias == alias]
        return found[0] if found else ""

    wait_until(
        lambda: status() == "CONNECTED", 90, lambda: said.read_text() if said.exists() else ""
    )

    class One(Swarm):
        def execute(self) -> Task:
            return Task(Module(WAITS.format(until=until), name="code"), method="any")

    swarm = api.deploy_swarm("lab", One())
    next(line for line in api.stream_logs(swarm) if line.text == "runs")
    assert "#SBATCH --signal=B:USR1@" in RECIPE.read_text()
    machine("scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the time is over
    wait_until(lambda: status() == "DRAINING", 60, lambda: said.read_text())
    until.touch()
    assert api.wait_swarm(swarm, timeout=60).status == "COMPLETED"
    wait_until(lambda: job not in machine("squeue", "--noheader", "--format=%i").split(), 90)
    assert list(scratch.iterdir()) == [], said.read_text()
