"""A daemon that is started again is there soon: what its plane alone needs is not imported."""

from __future__ import annotations

import subprocess
import sys

DEAR = {"numpy", "cryptography", "manta.node.plane.plane", "manta.transports.sealed.endpoint"}
CODE = "import sys, manta.node.daemon.process, manta.node.service; print(*sys.modules)"


def test_a_daemon_imports_nothing_of_what_its_plane_alone_needs() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    found = set(done.stdout.split())
    assert "manta.node.plane.keeper" in found
    assert not found & DEAR
