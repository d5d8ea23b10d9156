"""A manager that a library aborts, or the system kills, comes back; one that was told to end stays
ended. With real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta.console.exit_codes import Exit
from manta.manager.backup import BackupError, restore
from manta.manager.home import Home, KeeperFile, ManagerFile
from manta.protocol.sign_in import WhoAmI
from manta.testing import wait_until
from manta.testing.manager import Client
from manta.transports.security.keys import KeyPair
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
def home(lab: Lab) -> Home:
    return Home(lab.home / "manager")


def up(home: Home) -> ManagerFile:
    found = home.running()
    assert found is not None
    return found


def comes_back(home: Home, after: int) -> ManagerFile:
    def is_back() -> bool:
        found = home.running()
        return found is not None and found.pid != after

    wait_until(is_back)
    return up(home)


def all_ended(home: Home) -> bool:
    return not (home.is_in_use() or home.is_kept())


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_a_manager_that_dies_is_back_at_its_ports_with_all_that_it_had(
    lab: Lab, home: Home, number: signal.Signals
) -> None:
    started = lab.start()
    lab.sign_in(started.stdout)
    first = up(home)
    assert json.loads(lab("manager", "status", "--json"))["starts_again"] == 0
    os.kill(first.pid, number)
    second = comes_back(home, first.pid)
    assert (second.nodes, second.users, second.bulk) == (first.nodes, first.users, first.bulk)
    assert "admin@localhost" in lab("user", "list")
    status = lab("manager", "status")
    assert f"once; the last one was ended by {number.name}" in status
    record = json.loads(lab("manager", "status", "--json"))
    assert (record["starts_again"], record["gave_up"]) == (1, False)
    log = home.log.read_text()
    assert f"the manager was ended by {number.name}" in log
    assert lab("manager", "stop") == "Stopped the manager."
    assert all_ended(home)
    assert not home.keeper_file.exists()


def test_one_that_dies_again_comes_back_again(lab: Lab, home: Home) -> None:
    assert lab.start().returncode == 0
    keys, pid = KeyPair.generate(), up(home).pid
    with Client(up(home).users, up(home).public_key, keys=keys) as client:
        for _ in range(3):
            os.kill(pid, signal.SIGABRT)
            pid = comes_back(home, pid).pid
            # Whoever was connected finds the new one.
            assert client.refusal(WhoAmI(), 30).code == "not-signed-in"
    assert json.loads(lab("manager", "status", "--json"))["starts_again"] == 3


def test_how_it_ended_is_in_the_log_after_a_rotation_too(lab: Lab, home: Home) -> None:
    assert lab.start().returncode == 0
    home.log.rename(home.path / "manager.log.1")  # as a manager does when it is large
    first = up(home)
    os.kill(first.pid, signal.SIGABRT)
    comes_back(home, first.pid)
    assert "the manager was ended by SIGABRT" in home.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_one_that_is_told_to_end_by_signal_stays_ended(
    lab: Lab, home: Home, number: signal.Signals
) -> None:
    assert lab.start().returncode == 0
    os.kill(up(home).pid, number)
    wait_until(lambda: all_ended(home))
    assert lab.attempt("manager", "status").returncode == Exit.UNREACHABLE
    assert not home.keeper_file.exists()


def test_a_signal_to_who_keeps_it_ends_both(lab: Lab, home: Home) -> None:
    assert lab.start().returncode == 0
    keeper = home.keeper()
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGTERM)
    wait_until(lambda: all_ended(home))
    assert not home.manager_file.exists(), "it ended in order"


def test_a_manager_that_hangs_when_told_to_stop_can_be_killed_for_good(
    lab: Lab, home: Home
) -> None:
    """What `manta manager stop` then advises."""
    assert lab.start().returncode == 0
    keeper, manager = home.keeper(), up(home)
    assert keeper is not None
    os.kill(manager.pid, signal.SIGSTOP)
    os.kill(keeper.pid, signal.SIGTERM)
    os.kill(manager.pid, signal.SIGKILL)
    wait_until(lambda: all_ended(home))


def test_one_whose_keeper_is_killed_runs_on_and_is_stopped_as_ever(lab: Lab, home: Home) -> None:
    assert lab.start().returncode == 0
    keeper, manager = home.keeper(), up(home)
    assert keeper is not None
    os.kill(keeper.pid, signal.SIGKILL)
    wait_until(lambda: not home.is_kept())
    status = json.loads(lab("manager", "status", "--json"))
    assert (status["pid"], status["starts_again"]) == (manager.pid, None)
    assert lab("manager", "stop") == "Stopped the manager."
    assert all_ended(home)


def test_a_start_that_fails_is_told_and_not_repeated(lab: Lab, home: Home) -> None:
    home.path.mkdir(mode=0o700, parents=True)
    home.key.write_text("no key")
    home.key.chmod(0o600)
    failed = lab.start()
    assert failed.returncode == Exit.LOCAL
    assert "manager.key is not a key file" in failed.stderr
    assert all_ended(home)


# What a keeper does with a command that always fails.


@contextmanager
def keeping(home: Home, code: str, limits: str, *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A keeper of a "manager" that is that code. It says that it listens before."""
    fake = (
        "import os, signal, sys, time; from pathlib import Path; "
        "from manta.manager.home import Home, ManagerFile; "
        f"home = Home(Path({str(home.path)!r})); "
        "home.write_manager_file(ManagerFile(os.getpid(), 'n', 'u', 'b', 'k', 'f', 'v', 0.0)); "
    )
    keep = (
        "import logging, sys; from pathlib import Path; "
        "from manta.manager.home import Home; from manta.manager.keeper import Keeper; "
        "from manta.manager.respawn import RespawnLimits; "
        "logging.basicConfig(level='INFO', stream=sys.stderr); "
        f"sys.exit(Keeper(Home(Path(sys.argv[1])), sys.argv[2:], RespawnLimits({limits})).run())"
    )
    command: Sequence[str] = [sys.executable, "-c", fake + code]
    home.path.mkdir(mode=0o700, parents=True)
    with (
        log.open("wb") as output,
        Child[bytes](
            [sys.executable, "-c", keep, str(home.path), *command],
            stdout=subprocess.DEVNULL,
            stderr=output,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)


def note(home: Home) -> KeeperFile:
    found = home.read_keeper_file()
    assert found is not None
    return found


def test_it_gives_up_after_quick_ends_in_a_row_and_says_so(lab: Lab, home: Home) -> None:
    log = lab.home.parent / "log"
    limits = "most=3, pause=0.01"
    with keeping(home, "os.abort()", limits, log=log) as process:
        assert process.wait(60) == 128 + signal.SIGABRT
    assert (note(home).starts_again, note(home).gave_up) == (3, True)
    said = log.read_text()
    assert said.count("it is started again in") == 3
    assert "the 4th time in a row" in said
    assert "it is not started again" in said
    status = lab.attempt("manager", "status")
    assert status.returncode == Exit.UNREACHABLE
    assert "the last one was ended by SIGABRT, as others had before, and is not" in status.stdout
    record = json.loads(lab.attempt("manager", "status", "--json").stdout)
    assert (record["running"], record["starts_again"], record["gave_up"]) == (False, 3, True)
    # Whoever has found the cause starts it.
    assert lab.start().returncode == 0
    assert json.loads(lab("manager", "status", "--json"))["gave_up"] is False


def test_between_two_starts_it_is_told_can_be_stopped_and_another_is_refused(
    lab: Lab, home: Home
) -> None:
    log = lab.home.parent / "log"
    with keeping(home, "os.abort()", "pause=600, longest_pause=600", log=log) as process:
        wait_until(lambda: "started again in 600 s" in log.read_text())
        status = lab.attempt("manager", "status")
        assert status.returncode == Exit.UNREACHABLE
        assert "was ended by SIGABRT, and is being started again" in status.stdout
        refused = lab.start()
        assert refused.returncode == Exit.LOCAL
        assert "is being started" in refused.stderr
        with pytest.raises(BackupError, match="stop it first"):
            restore(log, home, replace=True)
        assert lab("manager", "stop") == "Stopped the manager."
        assert process.wait(60) == 0
    assert not home.keeper_file.exists()


def test_two_do_not_keep_one_folder(lab: Lab, home: Home) -> None:
    log = lab.home.parent / "log"
    with keeping(home, "time.sleep(60)", "", log=log):
        wait_until(home.is_kept)
        command = [sys.executable, "-m", "manta.manager.keeper", str(home.path), "true"]
        second = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert second.returncode == Exit.LOCAL
    assert "another process keeps a manager running" in second.stderr
