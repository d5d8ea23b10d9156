"""What Python does at a process's end is done at a round's, and belongs to it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from typing import Any

import pytest

from manta.node.task_server import messages as light
from manta.testing import wait_until

Start = Callable[..., Any]

TOP = """
import atexit, gzip, os, threading, time, weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from manta.light import Local, World
scratch = Local().scratch
def write(text="done"):
    time.sleep(0.1)
    World().results.add("written", text)
class Held:
    def __init__(self, file):
        self.file = file
    def __del__(self):
        self.file.write("held")
        self.file.close()
"""
WAYS = {
    "a thread": "threading.Thread(target=write).start()",
    "a thread of a thread": (
        "threading.Thread(target=lambda: threading.Thread(target=write).start()).start()"
    ),
    "an executor": "executor.submit(write)",
    "an executor's queue": "[executor.submit(time.sleep, 0.05) for _ in range(4)]\n"
    "    executor.submit(write)",
    "an exit handler": "atexit.register(write)",
    "a finalizer": "weakref.finalize(held, write)",
    "a method __del__": "globals()['kept'] = Deleted()",
    "a cycle": "kept = Deleted()\n    kept.itself = kept",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["return 1", "raise ValueError('late')", "raise SystemExit(0)"])
def test_what_is_still_to_do_is_done_in_the_round(
    start: Start, node: Any, way: str, end: str
) -> None:
    runtime = start(
        TOP + "executor = ThreadPoolExecutor(1)\nclass Plain:\n    pass\nheld = Plain()\n"
        "class Deleted:\n    def __del__(self, write=write):\n        write()\n"
        f"def main():\n    {WAYS[way]}\n    {end}\n"
    )
    for iteration in range(2):
        ended = runtime.run(iteration)
        assert [
            node.value(value) for _, at, value in node.results if at.iteration == iteration
        ] == ["done"]
        assert ended.lines("warning") == ended.lines("stderr") == []
        assert (ended.error is None) == ("Value" not in end)


FILES = {
    "text": "file = open(scratch / 'out', 'w')\ndef main():\n    file.write('text')\n",
    "bytes": "file = open(scratch / 'out', 'wb')\ndef main():\n    file.write(b'text')\n",
    "csv": "import csv\nrows = csv.writer(open(scratch / 'out', 'w'), lineterminator='')\n"
    "def main():\n    rows.writerow(['text'])\n",
    "a daemon's": "def use():\n    with open(scratch / 'out', 'w') as file:\n"
    "        file.write('text')\n        begun.set()\n        time.sleep(60)\n"
    "begun = threading.Event()\ndef main():\n"
    "    threading.Thread(target=use, daemon=True).start()\n    begun.wait()\n",
    "a cycle's": "def main():\n    held = [open(scratch / 'out', 'w')]\n    held[0].write('text')\n"
    "    held.append(held)\n",
    "logging": "import logging.handlers\nkept = logging.FileHandler(scratch / 'out')\n"
    "kept.terminator = ''\nlate = logging.handlers.MemoryHandler(100, target=kept)\n"
    "def main():\n    late.handle(logging.makeLogRecord({'msg': 'text', 'levelno': 20}))\n",
}


@pytest.mark.parametrize("kind", FILES)
def test_open_files_are_written_out(start: Start, kind: str) -> None:
    runtime = start(TOP + FILES[kind])
    ended = runtime.run()
    assert ended.error is None
    assert (runtime.scratch / "out").read_text() == "text"
    assert ended.lines("stderr") == []


def test_a_file_with_an_end_of_its_own_gets_it(start: Start) -> None:
    runtime = start(
        TOP + "file = gzip.open(scratch / 'out', 'wt')\ndef main():\n    file.write('text')\n"
    )
    assert runtime.run().error is None
    with gzip.open(runtime.scratch / "out", "rt") as file:
        assert file.read() == "text"


def test_the_processes_of_an_executor_end_what_they_were_given(start: Start) -> None:
    runtime = start(
        TOP + "def work(n):\n    time.sleep(0.1)\n    (scratch / str(n)).touch()\n"
        "pool = ProcessPoolExecutor(1)\ndef main():\n"
        "    for n in range(3):\n        pool.submit(work, n)\n"
    )
    assert runtime.run().error is None
    assert sorted(path.name for path in runtime.scratch.glob("[0-9]")) == ["0", "1", "2"]


HASTY = "from manta.light.runtime import ending\nending.PATIENCE = 1.0\n"

STAYS = {
    "threads 'first', 'second'": (
        "threading.Thread(target=stay, name='first').start()\n"
        "    threading.Thread(target=stay, name='second').start()"
    ),
    "an exit handler": "atexit.register(stay)",
    "thread 'ThreadPoolExecutor-0_0'": "executor.submit(stay)",
    "a finalizer": "globals()['kept'] = Deleted()",
}


@pytest.mark.parametrize("what", STAYS)
def test_what_does_not_end_in_time_is_cut_off_and_said(start: Start, node: Any, what: str) -> None:
    runtime = start(
        TOP + HASTY + "def stay():\n    write('before')\n    time.sleep(600)\n"
        "executor = ThreadPoolExecutor(1)\nfile = open(scratch / 'out', 'w')\n"
        "class Deleted:\n    def __del__(self, stay=stay):\n        stay()\n"
        f"def main():\n    {STAYS[what]}\n    file.write('text')\n    return 7\n"
    )
    began = time.monotonic()
    ended = runtime.run()
    assert ended.output == 7
    assert time.monotonic() - began < 10
    assert {node.value(value) for *_, value in node.results} == {"before"}
    assert ended.lines("warning") == [
        f"worker.0 was over, but not done within 1 s: {what} is cut off. "
        "Wait in its code for all that it starts."
    ]
    assert (runtime.scratch / "out").read_text() == "text"


NEVER = {
    "a handler that catches all": "atexit.register(catch_all)",
    "many handlers": "[atexit.register(time.sleep, 600) for _ in range(100)]",
    "many finalizers": "globals()['kept'] = [Deleted() for _ in range(100)]",
    "a thread's join that catches all": "Joined(target=time.sleep, args=(600,)).start()",
}


@pytest.mark.parametrize("what", NEVER)
def test_what_does_not_let_itself_be_cut_off_is_left(start: Start, what: str) -> None:
    runtime = start(
        TOP + HASTY + "file = open(scratch / 'out', 'w')\n"
        "def catch_all(*_):\n    while True:\n        try:\n            time.sleep(600)\n"
        "        except BaseException:\n            pass\n"
        "class Deleted:\n    def __del__(self, stay=time.sleep):\n        stay(600)\n"
        "class Joined(threading.Thread):\n    join = catch_all\n"
        f"def main():\n    {NEVER[what]}\n    file.write('text')\n    return 7\n"
    )
    for iteration in range(2):
        began = time.monotonic()
        ended = runtime.run(iteration)
        assert (ended.output, ended.error) == (7, None)
        assert time.monotonic() - began < 10
        assert len(ended.lines("warning")) == 1
        assert (runtime.scratch / "out").read_text() == "text"


HANG = """
import ctypes
lock, mutex = ctypes.PyDLL(None).pthread_mutex_lock, ctypes.create_string_buffer(64)
lock(mutex)
"""


def test_what_hangs_in_native_code_is_killed_and_counts(start: Start) -> None:
    runtime = start(TOP + HANG + "def main():\n    atexit.register(lock, mutex)\n    return 7\n")
    began = time.monotonic()
    runtime.begin()
    ended = runtime.end(30)
    assert (ended.output, ended.error) == (7, None)
    assert 9 < time.monotonic() - began < 25
    assert ended.lines("warning") == [
        "worker.0 was over, but hung in what its code does at its end, in native code: it was "
        "killed. Close in its code what it uses."
    ]


@pytest.mark.parametrize("how", ["os._exit(3)", "os.kill(os.getpid(), 11)"])
def test_who_dies_at_the_end_has_failed(start: Start, how: str) -> None:
    runtime = start(TOP + f"def main():\n    atexit.register(lambda: {how})\n    return 7\n")
    error = runtime.run().error
    assert error is not None
    assert "exit code 3" in error.sentence or "SIGSEGV" in error.sentence


ODD = {
    "a file that was detached": "import io\nkept = io.TextIOWrapper(io.BytesIO())\nkept.detach()\n",
    "a module that is an object": (
        "import sys\nclass Slots:\n    __slots__ = ('main',)\n"
        "kept = Slots()\nkept.main = main\nsys.modules[__name__] = kept\n"
    ),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_things_that_are_left_cost_nothing(start: Start, what: str) -> None:
    runtime = start(TOP + "def main():\n    return 7\n" + ODD[what])
    ended = runtime.run()
    assert (ended.output, ended.error) == (7, None)
    assert ended.lines("stderr") == []


def test_beside_a_daemon_thread_what_nothing_uses_is_finalized(start: Start) -> None:
    """Progress bars have such threads."""
    runtime = start(
        TOP + "file = gzip.open(scratch / 'out', 'wt')\ndef main():\n    file.write('text')\n"
        "    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    assert runtime.run().error is None
    with gzip.open(runtime.scratch / "out", "rt") as file:
        assert file.read() == "text"


def test_a_daemon_thread_is_not_waited_for(start: Start) -> None:
    runtime = start(
        TOP
        + "def main():\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    began = time.monotonic()
    assert runtime.run().lines("warning") == []
    assert time.monotonic() - began < 5


def test_an_exit_handler_that_fails_is_shown_and_costs_nothing_else(
    start: Start, node: Any
) -> None:
    runtime = start(
        TOP + "def main():\n    atexit.register(write)\n    atexit.register(int, 'x')\n"
    )
    ended = runtime.run()
    assert ended.error is None
    assert any("invalid literal for int()" in line for line in ended.lines("stderr"))
    assert len(node.results) == 1


def test_an_attempt_that_is_asked_to_end_in_its_last_work_has_little_time_left(
    start: Start, node: Any
) -> None:
    runtime = start(
        TOP + "def stay():\n    print('in')\n    time.sleep(600)\ndef main():\n"
        "    threading.Thread(target=stay, name='last').start()\n"
    )
    instance = runtime.begin()
    runtime.output("stdout", "in")
    began = time.monotonic()
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "enough"))
    ended = runtime.end()
    assert ended.error.sentence == "enough"
    assert time.monotonic() - began < 4.5


def test_a_timer_of_the_users_does_not_cut_it_short(start: Start, node: Any) -> None:
    runtime = start(
        TOP + "import signal\nsignal.signal(signal.SIGALRM, lambda *_: print('rung'))\n"
        "def main():\n    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\n    time.sleep(0.05)\n"
        "    threading.Thread(target=write).start()\n"
    )
    ended = runtime.run()
    assert ended.error is None
    assert ended.lines("warning") == []
    assert len(node.results) == 1


def test_an_object_that_lives_on_keeps_its_threads(start: Start) -> None:
    runtime = start(
        TOP + "class Worker:\n    def setup(self):\n        self.executor = ThreadPoolExecutor(1)\n"
        "        self.first = self.executor.submit(threading.get_ident).result()\n"
        "    def execute(self):\n"
        "        return self.executor.submit(threading.get_ident).result() == self.first\n"
    )
    assert [runtime.run(iteration).output for iteration in range(3)] == [True] * 3


OBJECT = """
class Worker:
    def setup(self):
        self.file = open(scratch / "out", "w")
        self.over = threading.Event()
    def execute(self):
        self.file.write("text")
        WAY
class Deleted:
    def __del__(self, path=scratch / "done"):
        path.touch()
def late():
    print("late")
    time.sleep(0.2)
    (scratch / "done").touch()
"""
AT_ITS_END = {
    "a thread": "threading.Thread(target=lambda: (self.over.wait(0.5), late())).start()",
    "an executor": "executor.submit(late)",
    "an exit handler": "atexit.register(late)",
    "the object's own __del__": "self.deleted = Deleted()",
}


@pytest.mark.parametrize("way", AT_ITS_END)
def test_an_object_that_lived_on_does_at_its_end_what_is_left(
    start: Start, node: Any, way: str
) -> None:
    runtime = start(
        TOP + "executor = ThreadPoolExecutor(1)\n" + OBJECT.replace("WAY", AT_ITS_END[way])
    )
    assert runtime.run().error is None
    assert (runtime.scratch / "out").read_text() == ""
    runtime.close()
    node.launcher.close()
    assert (runtime.scratch / "out").read_text() == "text"
    assert (runtime.scratch / "done").exists()


@pytest.mark.parametrize(
    "stays",
    ["threading.Thread(target=time.sleep, args=(600,)).start()", "atexit.register(lock, mutex)"],
)
def test_an_object_that_does_not_end_in_time_is_killed(start: Start, node: Any, stays: str) -> None:
    runtime = start(TOP + HANG + OBJECT.replace("WAY", stays))
    assert runtime.run().error is None
    runtime.close()
    began = time.monotonic()
    node.launcher.close()
    assert time.monotonic() - began < 8


def test_between_rounds_what_an_object_has_started_is_told_that_the_round_is_over(
    start: Start,
) -> None:
    runtime = start(
        TOP + "from manta.light.errors import LightError\n"
        "class Worker:\n    def setup(self):\n        self.told = []\n"
        "        threading.Thread(target=self.ask, daemon=True).start()\n"
        "    def ask(self):\n        while not self.told:\n            try:\n"
        "                World().get('x')\n            except LightError as error:\n"
        "                self.told = [type(error).__name__, str(error)]\n"
        "                (scratch / 'told').touch()\n"
        "    def execute(self):\n        return self.told\n"
    )
    runtime.run()
    wait_until((runtime.scratch / "told").exists)
    assert runtime.run(1).output == [
        "NodeLost",
        "The attempt is over, and its threads can't ask any more: have them end before it does.",
    ]
