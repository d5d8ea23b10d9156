"""A request to end gets through."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time

import click
import pytest

from manta.console.commands import run
from manta.console.exit_codes import Exit
from manta.console.interrupts import Interrupted, Interrupts
from tests.support.children import signal_other_thread


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_another_thread_takes_wakes_what_the_main_one_waits_in(
    number: signal.Signals,
) -> None:
    descriptors = os.listdir("/proc/self/fd")
    with Interrupts() as interrupts:
        interrupts.begin()
        sent = threading.Timer(0.1, signal_other_thread, (os.getpid(), number))
        sent.start()
        with pytest.raises(Interrupted):
            queue.SimpleQueue[None]().get()
        sent.join()
    assert os.listdir("/proc/self/fd") == descriptors


class Deaf:
    """Its finalizer is where the signal arrives: Python drops what is raised there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


def test_an_interrupt_that_python_dropped_is_raised_again_and_not_printed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    printed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    with Interrupts() as interrupts:
        interrupts.begin()
        Deaf()
        with pytest.raises(Interrupted):
            time.sleep(10)
        interrupts.finish()
        time.sleep(0.5)  # it is not said again
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert printed == []
    assert sys.unraisablehook == printed.append


@pytest.mark.parametrize("error", [ImportError("cut short"), KeyError("half"), SystemError("C")])
def test_what_fails_because_of_an_interrupt_is_told_as_that(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    def command() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        except Interrupted:
            raise error from None

    with pytest.raises(SystemExit) as ended:
        run(command, [], "command", lambda _: Exit.INTERNAL)
    assert ended.value.code == Exit.TERMINATED
    assert capsys.readouterr().err == "Terminated.\n"


def test_what_must_be_done_as_a_whole_is_done_first() -> None:
    done = []

    def work() -> None:
        with Interrupts() as interrupts:
            interrupts.begin()
            with interrupts.held():
                os.kill(os.getpid(), signal.SIGINT)
                done.append("whole")

    with pytest.raises(click.exceptions.Exit) as ended:  # nobody else caught it
        work()
    assert done == ["whole"]
    assert ended.value.exit_code == Exit.INTERRUPTED


def test_a_signal_before_there_is_something_to_remove_waits_until_there_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    done = []
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        done.append("what is to be removed is known")
        with pytest.raises(Interrupted) as interrupted:
            interrupts.begin()
    assert done
    assert interrupted.value.exit is Exit.TERMINATED
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_signal_insists() -> None:
    with Interrupts() as interrupts:
        interrupts.begin()
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.finish()
        assert not interrupts.insisted
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted
