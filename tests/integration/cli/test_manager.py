"""`manta manager ...`: whose process is whose."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.manager.home import Home
from manta.testing import wait_until
from manta.testing.manager import Client
from tests.support.children import Child
from tests.support.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "home")
    try:
        yield lab
    finally:
        lab.attempt("manager", "stop")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with Child[bytes]([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


def kill(lab: Lab) -> Home:
    home = Home(lab.home / "manager")
    found, keeper = home.running(), home.keeper()
    assert found is not None
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGKILL)  # first, or it would start another one
    os.kill(found.pid, signal.SIGKILL)
    wait_until(lambda: not (home.is_in_use() or home.is_kept()))
    return home


def test_a_process_that_got_the_id_of_a_killed_manager_is_left_alone(
    lab: Lab, stranger: subprocess.Popen[bytes]
) -> None:
    assert lab.start().returncode == 0
    home = kill(lab)
    left = json.loads(home.manager_file.read_bytes())
    home.manager_file.write_text(json.dumps({**left, "pid": stranger.pid}))
    asked = lab.attempt("manager", "status")
    assert (asked.returncode, asked.stdout) == (
        Exit.UNREACHABLE,
        f"No manager runs in {home.path}.\n",
    )
    stopped = lab.attempt("manager", "stop")
    assert stopped.returncode == Exit.LOCAL
    assert "No manager runs" in stopped.stderr
    assert stranger.poll() is None


def test_a_manager_starts_over_what_a_killed_one_left(lab: Lab) -> None:
    assert lab.start().returncode == 0
    kill(lab)
    again = lab.start()
    assert again.returncode == 0, again.stderr
    assert lab.attempt("manager", "status").returncode == Exit.OK
    assert "already" in lab.start().stderr
    assert lab.attempt("manager", "stop").returncode == Exit.OK
    assert not Home(lab.home / "manager").manager_file.exists()


def test_a_signal_to_who_waits_for_a_manager_ends_it_and_keeps_its_first_password(
    lab: Lab,
) -> None:
    where = {"MANTA_HOME": str(lab.home)}
    names = ("--node-port", "--user-port", "--bulk-port")
    ports = [str(part) for pair in zip(names, lab.ports, strict=True) for part in pair]
    with Child(
        [sys.executable, "-m", "manta", "manager", "start", "--background", *ports],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **where},
    ) as process:
        home = Home(lab.home / "manager")
        wait_until(lambda: home.database.exists())  # its first user is made next
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (Exit.TERMINATED, "Terminated.\n")
    assert not home.is_in_use()
    again = lab.start()
    assert "password" in said + again.stdout
    lab.sign_in(said + again.stdout)


def test_status_says_what_became_of_strangers(lab: Lab) -> None:
    assert lab.start().returncode == 0
    assert "strangers" not in lab("manager", "status")
    assert lab("manager", "stop") == "Stopped the manager."
    settings = lab.home / "manager" / "settings.json"
    impatient = {**json.loads(settings.read_bytes()), "strangers": {"patience": 1}}
    settings.write_text(json.dumps(impatient))
    assert lab.start().returncode == 0
    address = f"tcp://127.0.0.1:{lab.users}"
    with Client(address, lab.key()):
        wait_until(lambda: json.loads(lab("manager", "status", "--json"))["strangers"]["late"])
    assert "cut that did not enrol or sign in in time" in lab("manager", "status")
    log = (lab.home / "manager" / "manager.log").read_text()
    assert log.count("strangers cut, whose keys had not enrolled or signed in in time") == 1


def test_a_home_that_may_only_be_read_is_not_another_users(lab: Lab) -> None:
    home = lab.home / "manager"
    home.mkdir(parents=True)
    with mounted(home):
        open_to_all = lab.start()
        assert open_to_all.returncode == Exit.LOCAL
        assert str(home) in open_to_all.stderr
        home.chmod(0o700)
        assert lab.start().returncode == 0
        assert lab.attempt("manager", "stop").returncode == 0
        read_only = ["mount", "-o", "remount,ro", str(home)]
        # The process has let go, and is about to end.
        wait_until(lambda: not subprocess.run(read_only, capture_output=True).returncode)
        status, start = lab.attempt("manager", "status"), lab.start()
        subprocess.run(["mount", "-o", "remount,rw", home], check=True)
    assert (status.returncode, status.stdout) == (
        Exit.UNREACHABLE,
        f"No manager runs in {home}.\n",
    )
    assert start.returncode == Exit.LOCAL
    assert "another user" not in start.stderr
    assert "Read-only file system" in start.stderr


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "home", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
