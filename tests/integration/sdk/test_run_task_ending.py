"""What Python does at a process's end, `run_task` does at a task's, as a node would."""

from __future__ import annotations

import atexit
import gc
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from manta.light import Task
from manta.light.runtime import ending
from manta.testing import run_task
from tests.integration.light.test_endings import WAYS

TOP = """
import atexit, os, threading, time, weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from manta.light import Local, World
def write(text="done"):
    time.sleep(0.05)
    World().results.add("written", text)
class Plain:
    pass
class Deleted:
    def __del__(self, write=write):
        write()
executor = ThreadPoolExecutor(1)
held = Plain()
"""


@pytest.mark.parametrize("way", WAYS)
def test_what_is_still_to_do_is_done(way: str) -> None:
    for _ in range(2):
        done = run_task(TOP + f"def main():\n    {WAYS[way]}\n    return 7\n")
        assert done.output == 7
        assert done.results == {"written": ["done"]}


def test_it_is_done_for_a_class_too_and_in_any_thread() -> None:
    class Late(Task):
        def run(self) -> None:
            threading.Thread(target=self._write).start()
            atexit.register(self._write)

        def _write(self) -> None:
            self.world.results.add("written", 1)

    with ThreadPoolExecutor(1) as elsewhere:
        for done in (run_task(Late), elsewhere.submit(run_task, Late).result()):
            assert done.results == {"written": [1, 1]}


def test_open_files_are_written_out(tmp_path: Path) -> None:
    path = tmp_path / "out"
    run_task(
        f"file = open({str(path)!r}, 'w')\ndef main():\n    file.write('text')\n"
        "    import threading\n    threading.held = file\n"  # somebody else's hands
    )
    assert path.read_text() == "text"
    threading.held.close()  # type: ignore[attr-defined]
    del threading.held  # type: ignore[attr-defined]


def test_what_does_not_end_in_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "PATIENCE", 0.3)
    over = threading.Event()
    threading.over = over  # type: ignore[attr-defined]
    code = (
        "import atexit, threading, time\ndef main():\n"
        "    threading.Thread(target=threading.over.wait, name='last').start()\n    return 7\n"
    )
    with pytest.warns(RuntimeWarning, match="not done within 0.3 s: thread 'last' is cut off"):
        assert run_task(code).output == 7
    over.set()
    handler = code.replace("threading.Thread(target=threading.over.wait, name='last').start()", "")
    handler = handler.replace("    return", "    atexit.register(time.sleep, 60)\n    return")
    with pytest.warns(RuntimeWarning, match="an exit handler is cut off"):
        assert run_task(handler).output == 7
    del threading.over  # type: ignore[attr-defined]


def test_what_is_not_the_tasks_stays_as_it_is() -> None:
    rung: list[int] = []
    frozen = gc.get_freeze_count()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    stop = threading.Event()
    own = threading.Thread(target=stop.wait)
    own.start()
    handled = atexit._ncallbacks()
    try:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(int).result()
            timer = signal.setitimer(signal.ITIMER_REAL, 600)
            run_task(TOP + "def main():\n    executor.submit(write)\n")
            assert executor.submit(int).result() == 0
            assert 500 < signal.setitimer(signal.ITIMER_REAL, *timer)[0] < 600
        assert own.is_alive()
        signal.raise_signal(signal.SIGALRM)
        assert rung == [1]
    finally:
        signal.signal(signal.SIGALRM, before)
        stop.set()
        own.join()
    assert (gc.get_freeze_count(), atexit._ncallbacks()) == (frozen, handled)


def test_an_error_of_the_task_can_be_looked_into(tmp_path: Path) -> None:
    source = (
        "import threading, time\nfrom manta.light import World\nnames = ['held']\n"
        "class Odd(Exception):\n    def __str__(self):\n        return names[0]\n"
        "def main():\n    threading.Thread(target=time.sleep, args=(0.1,)).start()\n    raise Odd\n"
    )
    began = time.monotonic()
    with pytest.raises(Exception, match="held") as caught:
        run_task(source)
    assert time.monotonic() - began >= 0.1
    assert caught.traceback[-1].frame.f_globals["names"] == ["held"]
