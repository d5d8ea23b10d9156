"""Nodes in networks that drop their packets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.nat import SCENARIOS

ROOT = Path(__file__).parents[3]
UNSHARE = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
PROBE = (
    "ip link add veth0 type veth peer name veth1 && echo 0 > /proc/sys/net/ipv4/ip_forward"
    " && tc qdisc add dev veth0 root tbf rate 100mbit burst 256kb latency 50ms"
)


def can_make_networks() -> bool:
    if sys.platform != "linux" or not all(map(shutil.which, ("unshare", "ip", "iptables", "tc"))):
        return False
    return not subprocess.run([*UNSHARE, "sh", "-c", PROBE], capture_output=True).returncode


@pytest.mark.timeout(150)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_tasks_exchange_whatever_is_dropped(scenario: str) -> None:
    if not can_make_networks():
        pytest.skip("no networks can be made here")
    done = subprocess.run(
        [*UNSHARE, sys.executable, "-P", "-m", "tests.support.nat", scenario],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not done.returncode, done.stderr[-4000:]
