"""The loop under the links: order, timers, and that nothing ends it."""

from __future__ import annotations

import logging
import os
import threading
import time

import pytest

from manta.transports.errors import LocalTransportError
from manta.transports.zeromq.io_thread import IoThread


@pytest.fixture
def io():
    made = IoThread("test-io")
    made.start()
    yield made
    made.call(made.end)
    assert made.join(5)


def test_tasks_run_there_in_the_order_of_the_calls(io):
    seen = []
    for number in range(1000):
        io.call(lambda number=number: seen.append((number, io.is_current())))
    io.run(lambda: None, 5)
    assert seen == [(number, True) for number in range(1000)]
    assert not io.is_current()


def test_run_returns_and_raises_what_the_task_does(io):
    assert io.run(lambda: 42, 5) == 42
    assert io.run(lambda: io.run(lambda: 43, 5), 5) == 43  # there, at once
    with pytest.raises(ZeroDivisionError):
        io.run(lambda: 1 // 0, 5)


def test_run_does_not_wait_for_ever(io):
    held = threading.Event()

    def hold():
        held.wait(5)

    io.call(hold)
    with pytest.raises(TimeoutError, match="a handler blocks it"):
        io.run(lambda: None, 0.1)
    held.set()


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_nothing_that_a_task_raises_ends_the_loop(io, error, caplog):
    def fail():
        raise error

    readable, writable = os.pipe()

    def fail_on_reading():
        os.read(readable, 1)
        raise error

    with caplog.at_level(logging.CRITICAL):
        io.call(fail)
        io.call(lambda: io.call_later(0, fail))
        io.run(lambda: io.add_reader(readable, fail_on_reading), 5)
        os.write(writable, b"x")
        time.sleep(0.05)
        assert io.run(lambda: "alive", 5) == "alive"
    io.run(lambda: io.remove_reader(readable), 5)
    os.close(readable)
    os.close(writable)


def test_timers_fire_in_order_and_not_when_cancelled(io):
    seen = []
    done = threading.Event()

    def arm():
        io.call_later(0.06, done.set)
        io.call_later(0.04, lambda: seen.append("second"))
        io.call_later(0.02, lambda: seen.append("first"))
        io.call_later(0.03, lambda: seen.append("never")).cancel()

    start = time.monotonic()
    io.call(arm)
    assert done.wait(5)
    assert time.monotonic() - start >= 0.06
    assert seen == ["first", "second"]


def test_a_task_that_queues_itself_does_not_keep_others_out(io):
    ended = threading.Event()

    def again():
        if not ended.is_set():
            io.call(again)

    io.call(again)
    fired = threading.Event()
    io.call(lambda: io.call_later(0.01, fired.set))
    assert fired.wait(5)
    ended.set()


def test_a_burst_of_calls_costs_one_wake_up(io, monkeypatch):
    wakes = []
    write = os.write

    def counted(fd, data):
        wakes.append(fd)
        return write(fd, data)

    monkeypatch.setattr(os, "write", counted)
    held = threading.Event()

    def hold():
        held.wait(5)

    io.call(hold)
    for _ in range(1000):
        io.call(lambda: None)
    held.set()
    io.run(lambda: None, 5)
    assert len(wakes) <= 3


def test_after_its_end_a_task_is_an_error_and_not_a_wait():
    io = IoThread("test-io")
    io.start()
    io.call(io.end)
    assert io.join(5)
    with pytest.raises(LocalTransportError, match="closed"):
        io.run(lambda: None, 5)
    io.call(lambda: None)


def test_what_is_looked_at_before_each_wait_sees_a_burst_once(io):
    seen: list[int] = []
    looks: list[int] = []
    done = threading.Event()

    def look():
        looks.append(len(seen))
        if len(seen) == 100:
            io.call_later(0.0, done.set)  # of a timer that it sets, the same wait knows

    def burst():
        io.before_each_wait(look)
        for number in range(100):
            io.call(lambda number=number: seen.append(number))

    io.call(burst)
    assert done.wait(5)
    assert looks[:2] == [0, 100]


def test_nothing_that_is_looked_at_before_a_wait_ends_the_loop(io, caplog):
    def fail():
        raise ValueError("a look failed")

    io.run(lambda: io.before_each_wait(fail), 5)
    assert io.run(lambda: 42, 5) == 42
    assert "a call on the I/O thread failed" in caplog.text
