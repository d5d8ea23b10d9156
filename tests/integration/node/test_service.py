"""`manta_node service`: units of systemd."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.node.daemon.units import Unit
from tests.integration.node.conftest import HOST, Command, manta_node

__all__ = ["manta_node"]


@pytest.fixture
def edge(manta_node: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    made = manta_node("config", "init", "edge", "--manager-host", HOST, "--allow-unsandboxed")
    assert made.returncode == 0, made.stderr
    manta_node.environment["XDG_CONFIG_HOME"] = str(tmp_path)
    monkeypatch.setenv("MANTA_HOME", str(manta_node.home))
    return manta_node


def test_a_users_service_is_written_shown_and_removed(edge: Command, tmp_path: Path) -> None:
    path = tmp_path / "systemd" / "user" / "manta-node-edge.service"
    before = json.loads(edge("service", "status", "edge", "--json").stdout)
    assert (before["path"], before["installed"]) == (str(path), False)
    done = edge("service", "install", "edge")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path} written.")
    text = path.read_text()
    assert "start edge\n" in text
    assert f'Environment="MANTA_HOME={edge.home}"' in text
    assert "User=" not in text
    assert json.loads(edge("service", "status", "edge", "--json").stdout)["installed"] is True
    assert "was removed" in edge("service", "uninstall", "edge").stdout
    assert not path.exists()
    assert "is not there" in edge("service", "uninstall", "edge").stdout


def test_what_is_not_configured_is_no_service(edge: Command) -> None:
    assert edge("service", "install", "nowhere").returncode == Exit.NOT_FOUND
    assert edge("service", "install", "edge", "--as", "ada").returncode == Exit.USAGE


@pytest.mark.parametrize("user", ["", "daemon", "root"])
def test_systemd_takes_the_unit(edge: Command, tmp_path: Path, user: str) -> None:
    unit = Unit("edge", user)
    file = tmp_path / unit.name
    file.write_text(unit.text)
    assert ("\nUser=" in unit.text) == bool(user)
    assert ("CapabilityBoundingSet=\n" in unit.text) == (user == "daemon")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    kind = [] if user else ["--user"]
    done = subprocess.run(
        ["systemd-analyze", *kind, "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**edge.environment, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert unit.name not in done.stderr, done.stderr
