"""A request to end gets through."""

from __future__ import annotations

import os
import signal
import time
import warnings

import pytest

from manta.cli.interrupts import Interrupted, Interrupts


class Deaf:
    """Its finalizer is where the signal arrives: Python drops what is raised there."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000):
            pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_that_python_dropped_is_raised_again() -> None:
    with Interrupts() as interrupts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Deaf()
        with pytest.raises(Interrupted):
            time.sleep(10)
        interrupts.finish()
        time.sleep(0.5)  # it is not said again
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_what_must_be_done_as_a_whole_is_done_first() -> None:
    done = []

    def work() -> None:
        with Interrupts() as interrupts, interrupts.held():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("whole")

    with pytest.raises(Interrupted):
        work()
    assert done == ["whole"]


def test_a_second_signal_insists() -> None:
    with Interrupts() as interrupts:
        with pytest.raises(Interrupted):
            os.kill(os.getpid(), signal.SIGINT)
        interrupts.finish()
        assert not interrupts.insisted
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.insisted
