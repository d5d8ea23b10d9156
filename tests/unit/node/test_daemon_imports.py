"""Processes that begin often are there soon: they import what they need first, and no more."""

from __future__ import annotations

import subprocess
import sys

import pytest

OF_PLANE = {"cryptography", "manta.node.plane.plane", "manta.transports.sealed.endpoint"}
DEAR = {"numpy"}
"""What a plane needs only where it reduces arrays, or copies large values out of files."""


@pytest.mark.parametrize(
    ("modules", "needed", "dear"),
    [
        (
            "manta.node.daemon.process, manta.node.service",
            {"manta.node.plane.keeper"},
            OF_PLANE | DEAR,
        ),
        ("manta.node.plane.__main__", OF_PLANE, DEAR),
        ("manta.mesh.peer.__main__", OF_PLANE, DEAR),
    ],
    ids=["daemon", "plane", "peer"],
)
def test_a_process_imports_nothing_that_it_may_not_need(
    modules: str, needed: set[str], dear: set[str]
) -> None:
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert needed <= found
    assert not found & dear
