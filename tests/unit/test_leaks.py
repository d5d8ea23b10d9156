"""The leak check of conftest.py, seen to fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"

TESTS = """
import os, subprocess, socket, sys, threading, time, types
import pytest

kept = []

@pytest.fixture(scope="module")
def helper():
    process = subprocess.Popen(["sh"], stdin=subprocess.PIPE)
    yield process
    process.communicate()

def test_clean(tmp_path):
    with open(tmp_path / "file", "w"), socket.socket():
        subprocess.run(["true"], check=True)

def test_late():
    threading.Thread(target=time.sleep, args=[0.05]).start()

def test_of_a_longer_life(helper):
    helper.stdin.write(b"sleep 1 &\\n")
    helper.stdin.flush()
    time.sleep(0.05)

def leak_thread():
    threading.Thread(target=time.sleep, args=[60], daemon=True).start()

def leak_process():
    kept.append(subprocess.Popen(["sleep", "60"]))

def leak_orphan():
    subprocess.run(["sh", "-c", "setsid sleep 61 &"], check=True)
    time.sleep(0.05)

def leak_zombie():
    os.posix_spawn("/bin/true", ["true"], {})

def leak_file(tmp_path):
    kept.append(open(tmp_path / "leaked-file", "w"))

def leak_socket():
    kept.append(socket.socket())

def leak_pipe():
    os.pipe()

def leak_twin():
    sys.modules["light"] = types.ModuleType("light")
"""

LEAKED = {
    "thread": "thread <Thread(",
    "process": "'sleep\\x0060\\x00'",
    "orphan": "'sleep\\x0061\\x00'",
    "zombie": "process ",
    "file": "leaked-file",
    "socket": "-> socket:",
    "pipe": "-> pipe:",
    "twin": "not of manta: light",
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("leaks")
    (folder / "conftest.py").write_text(CONFTEST.read_text() + "\nGRACE = 0.2\n")
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\npython_functions = test_* leak_*\n")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(CONFTEST.parents[1])}  # where its imports are
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", LEAKED)
def test_a_leak_fails_the_test(outcome: str, kind: str) -> None:
    assert f"leak_{kind} ERROR" in outcome
    section = outcome.partition(f"ERROR at teardown of leak_{kind} ")[2].partition("\n____")[0]
    assert LEAKED[kind] in section


@pytest.mark.parametrize("name", ["clean", "late", "of_a_longer_life"])
def test_what_does_not_leak_passes(outcome: str, name: str) -> None:
    assert f"test_{name} PASSED" in outcome
    assert f"test_{name} ERROR" not in outcome
