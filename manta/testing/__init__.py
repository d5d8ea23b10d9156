"""Helpers for tests: of Manta, and of swarms."""

from manta.testing.actors import (
    FakeClock,
    InjectedCrash,
    crash,
    run_for,
    settle,
    wait_for_successor,
)
from manta.testing.tasks import TaskRun, run_task

__all__ = [
    "FakeClock",
    "InjectedCrash",
    "TaskRun",
    "crash",
    "run_for",
    "run_task",
    "settle",
    "wait_for_successor",
]
