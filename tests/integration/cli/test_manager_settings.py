"""A manager is what it was at its last start: its ports, its lease; and a lost password."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from tests.support.lab import Lab, manta


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "home")
    try:
        yield lab
    finally:
        lab.attempt("manager", "stop")


def ask(lab: Lab, *arguments: object, said: object = "") -> subprocess.CompletedProcess[str]:
    """Without the variables that name host and port."""
    return manta(*arguments, said=said, MANTA_HOME=lab.home)


def test_ports_and_lease_are_remembered_with_the_home(lab: Lab) -> None:
    first = lab.attempt(
        "manager", "start", "--background", "--host", "127.0.0.1", "--lease", 45,
        "--node-port", lab.ports[0], "--user-port", lab.ports[1], "--bulk-port", lab.ports[2],
    )  # fmt: skip
    assert first.returncode == 0, first.stderr
    password = re.findall(r"password\s+(\S+)", first.stdout)[0]
    assert ask(lab, "manager", "stop").returncode == 0
    again = ask(lab, "manager", "start", "--background", "--json")
    record = json.loads(again.stdout)
    assert [record[name] for name in ("nodes", "users", "bulk")] == [
        f"tcp://127.0.0.1:{port}" for port in lab.ports
    ]
    assert json.loads((lab.home / "manager" / "settings.json").read_text())["lease"] == 45
    # Who is on the same machine need not name the port either.
    admin = ("--email", "admin@localhost", "--password-stdin")
    signed_in = ask(lab, "sign-in", *admin, said=password)
    assert signed_in.stdout == f"Signed in to localhost:{lab.users} as admin@localhost.\n"
    made = subprocess.run(
        [sys.executable, "-m", "manta.node.command", "config", "init", "edge"],
        env={**os.environ, "MANTA_HOME": str(lab.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    text = (lab.home / "nodes" / "edge.toml").read_text()
    assert f"manager_port = {lab.ports[0]}\n" in text


def test_what_is_given_goes_before_what_was(lab: Lab) -> None:
    assert lab.start().returncode == 0
    assert ask(lab, "manager", "stop").returncode == 0
    other = Lab(lab.home).ports[1]
    again = ask(lab, "manager", "start", "--background", "--json", "--user-port", other)
    record = json.loads(again.stdout)
    assert record["nodes"] == f"tcp://127.0.0.1:{lab.ports[0]}"
    assert record["users"] == f"tcp://127.0.0.1:{other}"
    shown = json.loads(ask(lab, "config", "show", "--origin", "--json").stdout)
    assert str(other) in json.dumps(shown)
    elsewhere = json.loads(
        manta("config", "show", "--json", MANTA_HOME=lab.home, MANTA_HOST="far.away").stdout
    )
    assert "50052" in json.dumps(elsewhere)


@pytest.mark.parametrize("content", ["{", '{"lease": 0.5}', '{"users": 3}', "\xff"])
def test_damaged_settings_are_named_with_a_remedy(lab: Lab, content: str) -> None:
    folder = lab.home / "manager"
    folder.mkdir(mode=0o700, parents=True)
    (folder / "settings.json").write_bytes(content.encode("latin-1"))
    refused = ask(lab, "manager", "start", "--background")
    assert refused.returncode == Exit.LOCAL
    assert f"{folder / 'settings.json'} is damaged" in refused.stderr
    assert "correct it, or delete it" in refused.stderr


@pytest.mark.parametrize("lease", ["1", "soon", "9e9", "nan"])
def test_a_lease_that_cannot_be(lab: Lab, lease: str) -> None:
    refused = lab.attempt("manager", "start", "--background", "--lease", lease)
    assert refused.returncode == Exit.USAGE
    assert "--lease" in refused.stderr


# A lost password.


def test_who_owns_the_folder_can_reset_a_lost_password(lab: Lab) -> None:
    assert lab.start().returncode == 0
    running = ask(lab, "manager", "reset-password")
    assert running.returncode == Exit.LOCAL
    assert "stop it (manta manager stop)" in running.stderr
    assert ask(lab, "manager", "stop").returncode == 0
    reset = ask(lab, "manager", "reset-password")
    assert reset.returncode == 0, reset.stderr
    [password] = re.findall(r"admin@localhost has the password  (\S+)  which", reset.stdout)
    assert lab.start().returncode == 0
    admin = ("--email", "admin@localhost", "--password-stdin")
    assert lab.attempt("sign-in", *admin, said=password).returncode == 0
    assert ask(lab, "manager", "stop").returncode == 0
    chosen = ask(
        lab, "manager", "reset-password", "--password-stdin", "--json", said="correct horse\n"
    )
    record = json.loads(chosen.stdout)
    assert record == {"home": str(lab.home / "manager"), "email": "admin@localhost"}
    assert lab.start().returncode == 0
    assert lab.attempt("ps").returncode == Exit.DENIED, "sessions from before are over"
    assert lab.attempt("sign-in", *admin, said=password).returncode == Exit.DENIED
    assert lab.attempt("sign-in", *admin, said="correct horse").returncode == 0


def test_a_reset_that_cannot_be_says_why(lab: Lab) -> None:
    nothing = ask(lab, "manager", "reset-password")
    assert nothing.returncode == Exit.LOCAL
    assert "no manager's database" in nothing.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert lab.attempt("manager", "start", "--node-port", port).returncode != 0
    never = ask(lab, "manager", "reset-password")
    assert never.returncode == Exit.LOCAL
    assert "has no user yet, because it never started" in never.stderr
    assert lab.start().returncode == 0
    assert ask(lab, "manager", "stop").returncode == 0
    unknown = ask(lab, "manager", "reset-password", "--email", "eve@localhost")
    assert unknown.returncode == Exit.LOCAL
    assert "no user 'eve@localhost' here; there are: admin@localhost" in unknown.stderr
    short = ask(lab, "manager", "reset-password", "--password-stdin", said="short\n")
    assert short.returncode == Exit.USAGE
    assert "8 to 1024 characters" in short.stderr
