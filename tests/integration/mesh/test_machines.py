"""Peers on two machines, whose network is parted, and whose addresses change."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.integration.node.test_plane_firewalls import ROOT, UNSHARE, can_make_networks
from tests.support.machines import SCENARIOS


@pytest.mark.timeout(200)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_mesh_goes_on_and_is_one_again(scenario: str) -> None:
    if not can_make_networks():
        pytest.skip("no networks can be made here")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-P", "-m", "tests.support.machines", scenario],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert not done.returncode, done.stderr[-6000:]
