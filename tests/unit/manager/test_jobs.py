"""Who asks for much work waits for himself, and nobody else does."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from manta.manager.jobs import Jobs


def test_jobs_of_one_wait_for_each_other_and_those_of_others_pass_them() -> None:
    with ThreadPoolExecutor(2) as workers:
        jobs, gate, done = Jobs(workers), threading.Event(), list[int]()

        def slow(number: int) -> int:
            assert gate.wait(60)
            done.append(number)
            return number

        mine = [jobs.submit("eve", slow, number) for number in range(100)]
        for number in range(20):
            assert jobs.submit("ada", lambda n: n, number).result(60) == number
        assert not any(one.done() for one in mine)
        gate.set()
        assert [one.result(60) for one in mine] == done == list(range(100))
    assert jobs._waiting == {}


def test_a_job_that_fails_or_is_cancelled_holds_up_none_that_waits() -> None:
    with ThreadPoolExecutor(1) as workers:
        jobs, gate = Jobs(workers), threading.Event()
        first = jobs.submit("eve", gate.wait, 20)
        bad, cancelled = jobs.submit("eve", lambda: 1 // 0), jobs.submit("eve", lambda: 2)
        last = jobs.submit("eve", lambda: 3)
        assert cancelled.cancel()
        gate.set()
        assert first.result(60)
        with pytest.raises(ZeroDivisionError):
            bad.result(20)
        assert last.result(60) == 3
