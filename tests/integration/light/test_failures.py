"""What a task may do wrong, each in one clear sentence, and nothing left behind."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manta.light.runtime.processes import children
from manta.node.task_server import messages as light
from manta.testing import wait_until

Start = Callable[..., Any]


def main(body: str, top: str = "") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import os, sys, time\n{top}\ndef main():\n{lines}"


@pytest.mark.parametrize(
    ("source", "kind", "sentence"),
    [
        (
            "def main(:\n    pass\n",
            "SyntaxError",
            "Importing worker.py failed: worker.py has a syntax error in line 1: invalid syntax.",
        ),
        (
            "import nonesuch\n",
            "ModuleNotFoundError",
            "Importing worker.py raised ModuleNotFoundError: No module named 'nonesuch' "
            "(worker.py, line 1).",
        ),
        ("x = 1\n", "NothingToRun", "worker.py has nothing to run: give it a function main(), or"),
        ("import sys\nsys.exit(3)\n", "SystemExit", "Importing worker.py called sys.exit(3)."),
        (
            "breakpoint()\ndef main(): ...\n",
            "LightError",
            "Importing worker.py raised LightError: breakpoint() has no terminal here: run the "
            "task in your own process with manta.testing.run_task,",
        ),
        (
            "import os\nos._exit(0)\n",
            "Exited",
            "Importing worker.py ended its process with exit code 0.",
        ),
        (
            "import os\nos.kill(os.getpid(), 11)\n",
            "Killed",
            "Importing worker.py was ended by SIGSEGV.",
        ),
    ],
)
def test_a_module_that_cannot_be_imported(
    start: Start, source: str, kind: str, sentence: str
) -> None:
    dies = kind in ("Exited", "Killed")
    runtime = start("print('before')\n" + source if dies else source)
    for iteration in range(2):
        ended = runtime.run(iteration)
        assert ended.error.kind == kind
        assert ended.error.sentence.startswith(sentence)
        assert not dies or ended.lines("stdout") == ["before"]


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        (
            "x = 1 / 0",
            "ZeroDivisionError",
            "worker.0 raised ZeroDivisionError: division by zero (worker.py, line 5).",
        ),
        ("sys.exit(3)", "SystemExit", "worker.0 called sys.exit(3)."),
        ("sys.exit('no data')", "SystemExit", "worker.0 called sys.exit('no data')."),
        (
            "os._exit(0)",
            "Exited",
            "worker.0 ended its process with exit code 0 before its code returned",
        ),
        (
            "os._exit(5)",
            "Exited",
            "worker.0 ended its process with exit code 5 before its code returned",
        ),
        (
            "os.kill(os.getpid(), 11)",
            "Killed",
            "worker.0 was ended by SIGSEGV: its process crashed in native code.",
        ),
        ("os.kill(os.getpid(), 9)", "Killed", "worker.0 was killed (SIGKILL)"),
        ("os.kill(os.getpid(), 15)", "Killed", "worker.0 was ended by SIGTERM."),
        (
            "raise KeyboardInterrupt",
            "KeyboardInterrupt",
            "worker.0 raised KeyboardInterrupt (worker.py, line 5).",
        ),
        (
            "return {'a': [1, object()]}",
            "ValueNotSerializable",
            'worker.0 returned what can\'t be kept as its output: value["a"][1] is of type object',
        ),
        (
            "return lambda: 1",
            "ValueNotSerializable",
            "worker.0 returned what can't be kept as its output: value is of type function",
        ),
    ],
)
def test_an_attempt_that_fails(start: Start, body: str, kind: str, sentence: str) -> None:
    runtime = start(main(f"print('last words')\n{body}"))
    runtime.ready()
    for iteration in range(2):  # the runtime survives
        ended = runtime.run(iteration)
        assert (ended.error.kind, ended.error.sentence[: len(sentence)]) == (kind, sentence)
        assert "last words" in ended.error.last_lines


def test_a_place_in_a_value_is_named(start: Start) -> None:
    ended = start(main("return {'model': {'layer3': [1, object()]}}")).run()
    assert 'value["model"]["layer3"][1]' in ended.error.sentence


def test_main_that_wants_arguments(start: Start) -> None:
    ended = start("def main(path):\n    pass\n").run()
    assert "missing 1 required positional argument: 'path'" in ended.error.sentence


@pytest.mark.parametrize("code", ["", "0"])
def test_exit_code_0_is_success(start: Start, code: str) -> None:
    assert start(main(f"sys.exit({code})")).run().output is None


@pytest.mark.parametrize("form", ["main", "execute"])
def test_a_last_word_of_a_million_characters_is_cut(start: Start, form: str) -> None:
    code = "class Worker:\n    def execute(self):\n        import sys; sys.exit('x' * 1_000_000)\n"
    runtime = start(main("sys.exit('x' * 1_000_000)") if form == "main" else code)
    for iteration in range(2):
        error = runtime.run(iteration).error
        assert error.kind == "SystemExit"
        assert error.sentence.startswith("worker.0 called sys.exit('xxx")
        assert len(error.sentence) < 9_000


def test_a_last_word_of_a_million_characters_while_importing_is_cut(start: Start) -> None:
    error = start("import sys\nsys.exit('x' * 1_000_000)\n").run().error
    assert error.kind == "SystemExit"
    assert error.sentence.startswith("Importing worker.py called sys.exit('xxx")
    assert len(error.sentence) < 9_000


def test_a_traceback_is_of_the_tasks_own_code(start: Start) -> None:
    files = {
        "worker.py": "import helper\ndef main():\n    helper.work({})\n",
        "helper.py": """
            import json
            def work(data):
                try:
                    json.loads("{")
                except ValueError as error:
                    raise RuntimeError("no good\\ud800") from error
        """,
    }
    error = start(files).run().error
    assert error.sentence == "worker.0 raised RuntimeError: no good? (helper.py, line 7)."
    assert (
        error.traceback.splitlines()[0:3]
        == [
            "json.decoder.JSONDecodeError: Expecting property name enclosed in double quotes: "
            "line 1 column 2 (char 1)",
            "",
            "The above exception was the direct cause of the following exception:",
        ]
        or 'File "helper.py", line 5, in work' in error.traceback
    )
    assert 'File "worker.py", line 3, in main' in error.traceback
    assert "manta" not in error.traceback
    assert "json/decoder" not in error.traceback


def test_a_segfault_says_where(start: Start) -> None:
    error = start(main("import ctypes\nctypes.string_at(0)")).run().error
    assert error.sentence.startswith("worker.0 was ended by SIGSEGV")
    assert any("line 5 in main" in line for line in error.last_lines)


def test_an_attempt_that_never_returns_is_cancelled(start: Start, node: Any) -> None:
    runtime = start(main("print('in')\nwhile True:\n    time.sleep(1)"))
    instance = runtime.begin()
    runtime.output("stdout", "in")
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "worker.0 ran longer than 1 s."))
    ended = runtime.end()
    assert (ended.error.kind, ended.error.sentence) == (
        "Cancelled",
        "worker.0 ran longer than 1 s.",
    )
    runtime.begin(1)
    runtime.output("stdout", "in")


def test_a_resident_attempt_is_cancelled(start: Start, node: Any) -> None:
    runtime = start("""
        import time
        class Worker:
            rounds = 0
            def execute(self):
                self.rounds += 1
                print("in")
                if self.world.iteration == 1:
                    while True:
                        time.sleep(1)
                return self.rounds
    """)
    assert runtime.run(0).output == 1
    instance = runtime.begin(1)
    runtime.output("stdout", "in")
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "enough"))
    assert runtime.end().error.sentence == "enough"
    assert runtime.run(2).output == 1


def state(pid: int) -> str:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


def is_pending(pid: int, number: int) -> bool:
    """Whether a signal waits until the process goes on."""
    with open(f"/proc/{pid}/status") as file:
        (waits,) = [line.split()[1] for line in file if line.startswith("ShdPnd:")]
    return bool(int(waits, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_an_order_that_is_cancelled_before_the_object_takes_it_is_not_run(
    start: Start, node: Any, how: str
) -> None:
    runtime = start("""
        import os
        from manta.light import Local
        class Worker:
            def execute(self):
                (Local().scratch / str(self.world.iteration)).touch()
                return os.getpid()
    """)
    pid = runtime.run(0).output
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: state(pid) == "T")
    ordered, waiting = runtime.begin(1), runtime.begin(2)
    node.sessions.tell(light.CancelAttempt(runtime.id, waiting, "not wanted"))
    assert runtime.end().event.instance == waiting  # the other one was given out by then
    if how == "kill":
        node.sessions.tell(light.CutAttempt(runtime.id, ordered, "it is not wanted"))
    else:
        node.sessions.tell(light.CancelAttempt(runtime.id, ordered, "not wanted"))
        wait_until(lambda: is_pending(pid, signal.SIGTERM))
        os.kill(pid, signal.SIGCONT)
    ended = runtime.end()
    assert ended.event.instance == ordered
    assert ended.error.sentence.endswith("not wanted")
    assert runtime.run(3).error is None
    assert sorted(path.name for path in runtime.scratch.glob("[0-9]")) == ["0", "3"]


def test_an_attempt_is_cancelled_while_it_waits_for_another(start: Start, node: Any) -> None:
    runtime = start(main("print('in')\ntime.sleep(0.3)"))
    runtime.begin(0)
    runtime.output("stdout", "in")
    waiting = runtime.begin(1)
    node.sessions.tell(light.CancelAttempt(runtime.id, waiting, "not wanted"))
    ends = [runtime.end().event, runtime.end().event]
    by_iteration = {event.instance.iteration: event.error for event in ends}
    assert by_iteration[0] is None
    assert by_iteration[1].sentence == "not wanted"


# What an attempt leaves behind.

DAEMON = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        with open("pid", "w") as file:
            file.write(str(os.getpid()))
        while True:
            time.sleep(1)
    os._exit(0)
while not os.path.exists("pid") or not open("pid").read():
    time.sleep(0.005)
"""
CHILD = """
import subprocess
child = subprocess.Popen(["sleep", "600"])
with open("pid", "w") as file:
    file.write(str(child.pid))
"""


def is_alive(pid: int) -> bool:
    try:
        return state(pid) != "Z"
    except FileNotFoundError:
        return False


def left_behind(runtime: Any) -> int:
    wait_until(
        lambda: (runtime.scratch / "pid").exists() and (runtime.scratch / "pid").read_text() != ""
    )
    return int((runtime.scratch / "pid").read_text())


@pytest.mark.parametrize("leave", [DAEMON, CHILD])
def test_what_an_attempt_leaves_behind_ends_with_it(start: Start, leave: str) -> None:
    runtime = start(main(leave + "\nreturn 1"))
    assert runtime.run().output == 1
    pid = left_behind(runtime)
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("leave", [DAEMON, CHILD])
def test_what_a_cancelled_attempt_started_ends_with_it(start: Start, node: Any, leave: str) -> None:
    runtime = start(main(leave + "\nprint('in')\nwhile True:\n    time.sleep(1)"))
    instance = runtime.begin()
    runtime.output("stdout", "in")
    pid = left_behind(runtime)
    assert is_alive(pid)
    node.sessions.tell(light.CancelAttempt(runtime.id, instance, "enough"))
    runtime.end()
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("leave", [DAEMON, CHILD])
@pytest.mark.parametrize("how", ["kill", "sigkill", "stopped", "close"])
def test_a_runtime_ends_as_a_whole(start: Start, node: Any, leave: str, how: str) -> None:
    """By its handle; by the kernel; by its handle while it stands still; by its session's end."""
    runtime = start(main(leave + "\nprint('in')\nwhile True:\n    time.sleep(1)"))
    runtime.begin()
    runtime.output("stdout", "in")
    pid = left_behind(runtime)
    if how == "sigkill":
        os.kill(runtime.handle.pid, signal.SIGKILL)
    elif how == "close":
        node.sessions.tell(light.CloseSession(runtime.id))
    else:
        if how == "stopped":
            os.kill(runtime.handle.pid, signal.SIGSTOP)
        runtime.handle.kill()
        runtime.handle.kill()
    exit_ = runtime.exits.get(timeout=60)
    assert exit_.code == (-signal.SIGKILL if how == "sigkill" else 0)
    wait_until(lambda: not is_alive(pid))
    assert not is_alive(runtime.handle.pid)
    assert runtime.exits.empty()


def test_what_does_not_end_when_it_is_told_is_killed(node: Any, tmp_path: Path) -> None:
    exits: queue.SimpleQueue[int] = queue.SimpleQueue()
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    child = node.launcher.launch(
        [sys.executable, "-c", deaf],
        env={},
        cwd=tmp_path,
        on_exit=lambda ended: exits.put(ended.code),
    )
    wait_until(lambda: ignores_sigterm(child.pid))
    node.launcher.end(child)
    assert exits.get(timeout=60) == -signal.SIGKILL


def ignores_sigterm(pid: int) -> bool:
    text = Path(f"/proc/{pid}/status").read_text()
    ignored = next(line for line in text.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_a_runtime_that_is_gone_is_told(start: Start) -> None:
    runtime = start(main("pass"))
    runtime.ready()
    os.kill(runtime.handle.pid, signal.SIGKILL)
    assert runtime.event(light.SessionLost).session == runtime.id


def test_a_template_that_was_killed_is_made_anew(start: Start) -> None:
    runtime = start(main("return os.getppid()"))
    template = runtime.run(0).output
    os.kill(template, signal.SIGKILL)
    wait_until(lambda: not is_alive(template))
    assert runtime.run(1).output not in (template, 1)


def test_the_process_of_an_attempt_is_there_before_its_order(start: Start) -> None:
    runtime = start(main("return os.getpid(), os.getppid()"))
    _, template = runtime.run(0).output
    wait_until(lambda: len(children(template)) == 1)
    (waiting,) = children(template)
    assert runtime.run(1).output == (waiting, template)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_died_while_it_waited_for_an_order_is_replaced(
    start: Start, number: int
) -> None:
    runtime = start(main("return os.getpid(), os.getppid()"))
    _, template = runtime.run(0).output
    wait_until(lambda: len(children(template)) == 1)
    (waiting,) = children(template)
    os.kill(waiting, number)
    wait_until(lambda: not is_alive(waiting))
    pid, parent = runtime.run(1).output
    assert parent == template
    assert pid != waiting


def test_descriptors_that_user_code_closes_are_not_the_runtimes(start: Start) -> None:
    runtime = start(main("os.closerange(3, 256)\nreturn 1"))
    for iteration in range(2):
        assert runtime.run(iteration).output == 1


def test_launch_errors(start: Start, node: Any, tmp_path: Path) -> None:
    from manta.node.errors import LaunchError

    with pytest.raises(LaunchError, match="nonesuch could not be started"):
        node.launcher.launch(["nonesuch"], env={}, cwd=tmp_path, on_exit=lambda *_: None)


def test_a_module_that_never_finishes_importing(start: Start) -> None:
    runtime = start("print('in')\nwhile True:\n    pass\n")
    runtime.begin()
    wait_until(lambda: len(processes_of(runtime)) == 3)
    pids = processes_of(runtime)
    runtime.handle.kill()
    assert runtime.exits.get(timeout=60).code == 0
    assert not any(is_alive(pid) for pid in pids)


def processes_of(runtime: Any) -> set[int]:
    from manta.light.runtime.processes import descendants

    return {runtime.handle.pid} | descendants(runtime.handle.pid)


def test_an_exception_that_cannot_be_told(start: Start) -> None:
    top = "class Odd(Exception):\n    def __str__(self):\n        raise ValueError('odd')"
    error = start(main("raise Odd", top)).run().error
    assert error.kind == "Odd"
