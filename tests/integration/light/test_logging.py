"""Whatever task code does to Python's logging, its own logger reaches the user, and so does what
it logs without setting anything up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from manta.node.task_server import streams
from tests.support.harness import Runtime

Start = Callable[..., Runtime]


def test_no_set_up_of_logging_silences_the_tasks_logger(start: Start) -> None:
    runtime = start("""
        import copy, logging, logging.config, os, pickle
        from manta.light import Task
        class Worker(Task):
            def run(self):
                mine = self.logger
                mine.info("at first")
                logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
                mine.info("after dictConfig")
                logging.disable(logging.CRITICAL)
                mine.info("after disable")
                logging.basicConfig(level=logging.CRITICAL, force=True)
                mine.info("after basicConfig")
                logging.shutdown()
                mine.info("after shutdown")
                mine.handlers.clear()
                self.logger.info("after clear")
                mine.getChild("part").info("of a child")
                assert pickle.loads(pickle.dumps(mine)) is copy.deepcopy(mine) is self.logger
                os.closerange(3, 100)
                mine.info("on stderr")
                mine.setLevel("ERROR")
                mine.info("never")
    """)
    ended = runtime.run()
    assert ended.error is None, ended.error
    assert ended.lines("info") == [
        "at first",
        "after dictConfig",
        "after disable",
        "after basicConfig",
        "after shutdown",
        "after clear",
        "of a child",
    ]
    assert ended.lines("stderr") == ["on stderr"]


def test_loggers_of_modules_reach_the_user_from_info_on(start: Start) -> None:
    runtime = start("""
        import logging
        log = logging.getLogger(__name__)
        log.info("imported")
        def main():
            log.debug("never")
            log.info("info")
            logging.getLogger("some.library").warning("warning")
            assert not logging.getLogger().handlers
    """)
    for iteration in range(2):
        ended = runtime.run(iteration)
        assert ended.lines("info") == ["imported", "info"]
        assert ended.lines("warning") == ["warning"]
        assert ended.lines("debug") == []
        assert ended.lines("stderr") == []


def test_what_the_user_sets_up_is_honoured(start: Start) -> None:
    runtime = start("""
        import logging, sys
        logging.basicConfig(level="WARNING", format="%(levelname)s! %(message)s", stream=sys.stdout)
        from manta.light import Task
        class Worker(Task):
            def run(self):
                logging.info("never")
                logging.getLogger("mine").warning("warned")
                logging.getLogger().setLevel("DEBUG")
                logging.debug("all")
                self.logger.info("own")
    """)
    ended = runtime.run()
    assert ended.lines("stdout") == ["WARNING! warned", "DEBUG! all"]
    assert ended.lines("info") == ["own"]


def test_logging_of_the_module_itself_arrives_as_python_writes_it(start: Start) -> None:
    ended = start("import logging\ndef main():\n    logging.info('x')\n").run()
    assert ended.lines("stderr") == ["INFO:root:x"]


def test_a_resident_object_logs_for_the_attempt_that_runs(start: Start) -> None:
    runtime = start("""
        import logging
        class Worker:
            def execute(self):
                self.logger.info("own %d", self.world.iteration)
                logging.getLogger("x").info("root %d", self.world.iteration)
    """)
    for iteration in range(3):
        ended = runtime.run(iteration)
        assert ended.lines("info") == [f"own {iteration}", f"root {iteration}"]


def test_a_record_of_any_length_arrives_whole(start: Start) -> None:
    ended = start("""
        import logging
        from manta.light import Task
        class Worker(Task):
            def run(self):
                self.logger.info("\\u65e5" * 100_000)
                self.logger.warning("\\n".join("line %d " % i + "x" * 1000 for i in range(200)))
                logging.addLevelName(25, "N" * 100)
                self.logger.log(25, "of a level with a long name")
                self.logger.error("last")
    """).run()
    assert "".join(ended.lines("info")) == "\u65e5" * 100_000
    lines = ended.lines("warning")
    assert [line.partition(" x")[0] for line in lines] == [f"line {i}" for i in range(200)]
    assert {len(line) - len(line.rstrip("x")) for line in lines} == {1000}
    assert ended.lines("n" * 64) == ["of a level with a long name"]
    assert ended.lines("error") == ["last"]


def test_a_progress_bar_that_stands_still_shows_its_latest_state(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REDRAWN_EVERY", 0.1)
    runtime = start("""
        import sys, time
        from manta.light import Local
        def main():
            for number in range(51):
                sys.stderr.write(f"\\r{number}%")
                sys.stderr.flush()
            while not (Local().scratch / "go on").exists():
                time.sleep(0.01)
            sys.stderr.write("\\r100%\\n")
    """)
    runtime.begin()
    runtime.output("stderr", "50%")
    (runtime.scratch / "go on").touch()
    lines = runtime.end().lines("stderr")
    assert lines[-2:] == ["50%", "100%"]
    assert not any("\r" in line for line in lines)


def test_records_are_lines_without_returns(start: Start) -> None:
    ended = start("""
        from manta.light import Task
        class Worker(Task):
            def run(self):
                self.logger.info("1%\\r2%\\nb\\u2028c\\n")
                self.logger.info("")
    """).run()
    assert ended.lines("info") == ["2%", "b\u2028c", ""]
