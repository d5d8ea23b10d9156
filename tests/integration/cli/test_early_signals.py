"""A signal in the first moments of a command, while Python still imports it.

What the interpreter does before the first line of ours is its own: a signal there shows Python's
traceback. So these processes keep signals until that line, and get them from there on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manta.console import early
from manta.console.exit_codes import Exit
from tests.support.children import Child
from tests.support.ports import free_ports

FIRST_LINE = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
os.close(int(sys.argv.pop(1)))  # says that Python is up
module = sys.argv[0] = sys.argv.pop(1)
import runpy
runpy.run_module(module, run_name="__main__")
"""
MOMENTS = [0.0, 0.002, 0.005, *(0.02 * n for n in range(1, 21))]


def ended_by(number: int, after: float, line: str, home: Path) -> tuple[int, str, float]:
    """Its exit code, as a shell has it, and all that was said of a command that gets the signal
    so many seconds after its first line."""
    (home / "nodes").mkdir(parents=True)
    (home / "nodes" / "edge.toml").write_text(CONFIG)
    (home / "swarm.py").write_text(SWARM)
    words = line.replace("HOME", str(home)).format(*free_ports()).split()
    reading, writing = os.pipe()
    with Child(
        [sys.executable, "-c", FIRST_LINE, str(writing), *words],
        pass_fds=[writing],
        env={**os.environ, "MANTA_HOME": str(home)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        os.close(writing)
        os.read(reading, 1)
        os.close(reading)
        time.sleep(after)
        process.send_signal(number)
        said, _ = process.communicate(timeout=60)
    # At its very end the interpreter gives signals their default back.
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    return code, said, after


SWARM = """
from manta import Swarm, Task
class One(Swarm):
    def execute(self):
        return Task("import time\\ndef main():\\n    time.sleep(60)", alias="one")()
"""
CONFIG = "[network]\nmanager_port = 1\n[containers]\nrunner = 'limits'\nallow_unsandboxed = true\n"

COMMANDS: dict[str, tuple[str, int]] = {
    "manta ps": ("manta ps", Exit.DENIED),
    "manta --help": ("manta --help", Exit.OK),
    "manta run": ("manta run HOME/swarm.py", Exit.INTERRUPTED),
    "manta manager start": (
        "manta manager start --host 127.0.0.1 --node-port {} --user-port {} --bulk-port {}",
        Exit.OK,
    ),
    "manta_node status": ("manta.node.command status", Exit.NOT_FOUND),
    "manta_node start": ("manta.node.command start edge", Exit.DENIED),
}
"""Each, and what it ends with where the signal comes late: it was over, or stops in good order;
the node has no token."""


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_at_any_moment_ends_a_command_quietly(command: str, tmp_path: Path) -> None:
    line, late = COMMANDS[command]

    def interrupted(after: float) -> tuple[int, str, float]:
        return ended_by(signal.SIGINT, after, line, tmp_path / str(after))

    with ThreadPoolExecutor(3) as threads:
        ends = list(threads.map(interrupted, MOMENTS))
    assert [end for end in ends if "Traceback" in end[1]] == []
    assert {code for code, _, _ in ends} <= {Exit.INTERRUPTED, late}
    assert ends[0][:2] == (Exit.INTERRUPTED, "")


@pytest.mark.parametrize("after", [0.0, 0.05, 0.15, 0.3])
def test_sigterm_in_the_first_moments_has_its_code(after: float, tmp_path: Path) -> None:
    code, said, _ = ended_by(signal.SIGTERM, after, "manta ps", tmp_path)
    assert code in {Exit.TERMINATED, Exit.DENIED}, said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "module", ["manta.__main__", "manta.node.command", "manta.manager", "manta.node"]
)
def test_nothing_is_imported_before_signals_are_guarded(module: str) -> None:
    code = (
        "import sys, runpy; before = set(sys.modules)\n"
        "import manta.console.early as early\n"
        "def guard(**_): print(*sorted(set(sys.modules) - before)); raise SystemExit\n"
        "early.guard = guard\n"
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = {"manta", "manta.console", "manta.console.early", "manta.manager", "manta.node"}
    assert set(done.stdout.split()) <= ours | {"__future__"}


def test_what_was_told_and_dropped_ends_no_later_program() -> None:
    """Python drops what is raised in a finalizer; the alarm by which it is raised again outlives
    `exec`, where nobody handles it."""
    code = (
        "import os, signal, sys\n"
        "from manta.console import early\n"
        "from manta.console.interrupts import Interrupts\n"
        "class Dropping:\n"
        "    def __del__(self):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "with Interrupts() as interrupts:\n"
        "    interrupts.begin()\n"
        "    Dropping()\n"
        "    early.hold()\n"
        "    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(9)'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (Exit.TERMINATED, "", "")


def test_codes_are_those_of_the_table() -> None:
    assert (early.INTERRUPTED, early.TERMINATED) == (Exit.INTERRUPTED, Exit.TERMINATED)


def test_what_was_ignored_stays_ignored() -> None:
    """As by nohup."""
    code = (
        "import os, signal\n"
        "from manta.console.early import guard\n"
        "from manta.console.interrupts import Interrupts\n"
        "guard()\n"
        "with Interrupts() as interrupts:\n"
        "    interrupts.begin()\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    print('still here')\n"
    )
    command = ["nohup", sys.executable, "-c", code]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"still here\n")
