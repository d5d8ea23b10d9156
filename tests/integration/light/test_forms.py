"""The three ways to write a module, and what each finds around it."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest

Start = Callable[..., Any]

CLASS = """
    from manta.light import Task
    rounds = []
    class Worker(Task):
        def run(self):
            rounds.append(self.world.iteration)
            return rounds
"""
PLAIN_CLASS = """
    class Worker:
        def __init__(self):
            self.seen = self.world.iteration
        def run(self):
            self.logger.info("here")
            return [self.seen, self.world.size]
"""
SCRIPT = """
    rounds = []
    def main():
        rounds.append(1)
        print("main")
        return len(rounds)
"""
GUARDED = SCRIPT + "\n    if __name__ == '__main__':\n        main()\n"
UNGUARDED = SCRIPT + "\n    main()\n"
UNGUARDED_LATE = (
    SCRIPT + "\n    try:\n        print('got', main())\n    except Exception:\n        pass\n"
)
SCRIPT_WITH_CLASS = (
    "    from manta.light import Task\n"
    + GUARDED
    + """
    class Worker(Task):
        def run(self):
            return "class"
"""
)


def test_a_class_starts_fresh_each_attempt(start: Start) -> None:
    runtime = start(CLASS)
    assert [runtime.run(i).output for i in range(3)] == [[0], [1], [2]]


def test_a_class_that_is_no_task(start: Start) -> None:
    runtime = start(PLAIN_CLASS)
    assert runtime.run(4).output == [4, 3]


@pytest.mark.parametrize("source", [SCRIPT, GUARDED, UNGUARDED, UNGUARDED_LATE])
def test_main_runs_once_an_attempt(start: Start, source: str) -> None:
    runtime = start(source)
    for i in range(2):
        ended = runtime.run(i)
        assert ended.output == 1
        assert ended.lines("stdout").count("main") == 1


def test_main_that_is_imported_from_a_file_beside(start: Start) -> None:
    files = {"worker.py": "from helper import main\nmain()\n", "helper.py": SCRIPT}
    ended = start(files).run()
    assert ended.output == 1
    assert ended.lines("stdout") == ["main"]


def test_main_comes_before_classes_and_class_name_before_main(start: Start) -> None:
    runtime = start(SCRIPT_WITH_CLASS)
    assert runtime.run(0).output == 1
    assert runtime.run(1, class_name="Worker").output == "class"


def test_a_package(start: Start) -> None:
    files = {
        "fl/__init__.py": "from fl.work import Worker\nfrom .sub import VALUE\n",
        "fl/work.py": """
            from manta.light import Task
            from . import sub
            class Base(Task):
                def run(self):
                    return "base"
            class Worker(Base):
                def run(self):
                    return sub.VALUE
        """,
        "fl/sub.py": "VALUE = 5\n",
    }
    assert start(files, "fl").run().output == 5


def test_a_module_named_as_one_of_the_standard_library(start: Start) -> None:
    assert start({"queue.py": "def main():\n    return 1\n"}, "queue.py").run().output == 1


RESIDENT = """
    import os
    from manta.light import Task
    class Worker(Task):
        def setup(self):
            print("set up")
            self.rounds = 0
        def execute(self):
            self.rounds += 1
            print("round", self.world.iteration)
            if self.world.iteration == 2:
                raise ValueError("once")
            return [self.rounds, os.getpid()]
"""


def test_a_resident_object_lives_on(start: Start) -> None:
    runtime = start(RESIDENT)
    first = runtime.run(0)
    assert first.lines("stdout") == ["set up", "round 0"]
    second = runtime.run(1)
    assert second.lines("stdout") == ["round 1"]
    assert runtime.run(2).error.kind == "ValueError"
    third = runtime.run(3)
    assert [first.output[0], second.output[0], third.output[0]] == [1, 2, 4]
    assert first.output[1] == second.output[1] == third.output[1] != runtime.handle.pid


def test_setup_that_fails_is_tried_again(start: Start) -> None:
    runtime = start("""
        class Worker:
            def setup(self):
                if self.world.iteration == 0:
                    raise ValueError("not yet")
            def execute(self):
                return self.world.iteration
    """)
    assert runtime.run(0).error.sentence.startswith("worker.0 raised ValueError: not yet")
    assert runtime.run(1).output == 1


def test_a_resident_object_that_was_killed_is_made_anew(start: Start, node: Any) -> None:
    runtime = start("""
        import os, time
        class Worker:
            def setup(self):
                self.rounds = 0
            def execute(self):
                self.rounds += 1
                if self.world.iteration == 1:
                    os.kill(os.getpid(), 9)
                return self.rounds
    """)
    assert runtime.run(0).output == 1
    assert runtime.run(1).error.kind == "Killed"
    assert runtime.run(2).output == 1


@pytest.mark.parametrize("has_an_order", [False, True])
def test_a_resident_object_that_dies_between_attempts_is_made_anew(
    start: Start, has_an_order: bool
) -> None:
    """Also where the next order has come by then, which it has not taken."""
    runtime = start("""
        import os
        class Worker:
            def setup(self):
                self.rounds = 0
            def execute(self):
                self.rounds += 1
                return [self.rounds, os.getpid()]
    """)
    rounds, pid = runtime.run(0).output
    os.kill(pid, signal.SIGSTOP)
    if has_an_order:
        runtime.begin(1)
    os.kill(pid, signal.SIGKILL)
    if not has_an_order:
        runtime.begin(1)
    assert runtime.end().output == [rounds, ANY]
    assert runtime.run(2).output == [rounds + 1, ANY]


OUTPUT = """
    import os, sys
    from manta.light import Task
    def spoil():
        shown = [os.get_blocking(fd) for fd in (1, 2)]
        print(f"said {shown}", flush=True)
        sys.stdout.write("unfinished")
        sys.stdout.flush()
        for fd in (1, 2):
            os.set_blocking(fd, False)
            os.dup2(os.open(os.devnull, os.O_WRONLY), fd)
"""


@pytest.mark.parametrize(
    "form",
    ["def main():\n    spoil()\n", "class Worker:\n    def execute(self):\n        spoil()\n"],
    ids=["main", "execute"],
)
def test_what_a_round_does_to_its_output_is_over_with_the_round(start: Start, form: str) -> None:
    runtime = start(textwrap.dedent(OUTPUT) + form)
    for iteration in range(3):
        said = runtime.run(iteration).lines("stdout")
        assert said == ["said [True, True]", "unfinished"]


def test_what_an_object_prints_between_rounds_comes_before_the_next(start: Start) -> None:
    runtime = start("""
        import os, threading
        class Worker:
            go_on = None
            def execute(self):
                print("in", flush=True)
                if self.go_on is None:
                    self.go_on, end = os.pipe()
                    path = f"/proc/{os.getpid()}/fd/{end}"
                    def late():
                        os.read(self.go_on, 1)
                        os.write(1, b"between\\n")
                    threading.Thread(target=late, daemon=True).start()
                    return path
    """)
    with open(runtime.run(0).output, "wb") as file:
        file.write(b"x")
    ended = runtime.run(1)
    assert sorted(ended.lines("stdout")) == ["between", "in"]


def test_several_classes_are_told_apart_by_the_attempts(start: Start) -> None:
    runtime = start("""
        class One:
            def run(self):
                return 1
        class Two:
            def execute(self):
                return 2
    """)
    assert runtime.run(0, class_name="One").output == 1
    assert runtime.run(1, class_name="Two").output == 2
    assert "several Task classes (One, Two)" in runtime.run(2).error.sentence
    assert "no class 'Three'" in runtime.run(3, class_name="Three").error.sentence


def test_world_works_without_a_task(start: Start) -> None:
    runtime = start("""
        from manta.light import Local, Results, World
        world = World()
        def main():
            Results().save([1, 2], tag="numbers")
            Local().scratch.joinpath("file").write_text("x")
            return world.iteration, Local().scratch.list_dir(), __name__
    """)
    assert runtime.run(6).output == (6, ["file"], "worker")


def test_attributes_may_be_replaced(start: Start) -> None:
    runtime = start("""
        from manta.light import Local, Task, World
        class Worker(Task):
            def __init__(self):
                self.world = World()
                self.local = Local()
            def run(self):
                return self.world.iteration
    """)
    assert runtime.run(3).output == 3


def test_processes_of_an_attempt_can_use_its_module(start: Start) -> None:
    runtime = start("""
        import multiprocessing, sys
        from manta.light import World
        from manta.light.errors import NotInTask
        def square(n):
            try:
                World().iteration
                World().get("x")
            except NotInTask as error:
                return n * n, "belong to the process that runs the attempt" in str(error)
        def main():
            found = []
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(2) as pool:
                    found.append(pool.map(square, [1, 2]))
            return found, sys.argv[0]
    """)
    found, program = runtime.run().output
    assert found[0] == [(1, True), (4, True)]
    assert [n for n, _ in found[1]] == [1, 4]
    assert program == str(runtime.module / "worker.py")


@pytest.mark.parametrize("form", ["main", "execute"])
def test_what_an_attempt_forks_dies_of_sigterm_whenever_it_comes(start: Start, form: str) -> None:
    """A handler in Python is not called while a process waits for a lock, as a pool's do, and a
    signal is forgotten that comes before the forked process has run at all."""
    runtime = start(f"""
        import os, signal
        from concurrent.futures import ThreadPoolExecutor
        def forked():
            read, write = os.pipe()
            pid = os.fork()
            if not pid:
                os.read(read, 1)
                os._exit(1)
            os.kill(pid, signal.SIGTERM)
            ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            os.close(read), os.close(write)
            return ended
        def main(*_):
            heeds = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
            with ThreadPoolExecutor(1) as threads:
                ended = {{forked() for _ in range(20)}} | {{threads.submit(forked).result()}}
            return heeds, list(ended)
        if {form == "execute"}:
            class Worker:
                execute = lambda self: list(main())
    """)
    for iteration in range(2):
        heeds, ended = runtime.run(iteration).output
        assert (heeds, list(ended)) == (True, [-15])


def test_a_timer_that_an_attempt_left_running_does_not_raise_in_what_is_not_its_code(
    start: Start,
) -> None:
    code = """
        import signal, time
        def ring(number, frame):
            raise TimeoutError("rung")
        def arm():
            signal.signal(signal.SIGALRM, ring)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        {form}
    """
    forked = start(
        code.format(form="def main():\n            arm()\n            return 'x' * 60_000")
    )
    kept = [forked.run(iteration) for iteration in range(30)]
    for ended in kept:  # it may ring in the code itself, before that returns
        assert ended.error.kind == "TimeoutError" if ended.error else ended.output == "x" * 60_000
    lives = start(
        code.format(
            form="""class Worker:
            rounds = 0
            def execute(self):
                signal.setitimer(signal.ITIMER_REAL, 0)
                self.rounds += 1
                signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
                arm()
                return self.rounds
        """
        )
    )
    assert [lives.run(iteration).output for iteration in range(30)] == list(range(1, 31))
