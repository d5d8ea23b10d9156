"""Helpers for tests: of Manta, and of swarms."""

from manta.testing.actors import (
    FakeClock,
    InjectedCrash,
    crash,
    run_for,
    settle,
    wait_for_successor,
)
from manta.testing.attempts import TaskRun
from manta.testing.instances import run_tasks
from manta.testing.tasks import run_task
from manta.testing.waiting import wait_until

__all__ = [
    "FakeClock",
    "InjectedCrash",
    "TaskRun",
    "crash",
    "run_for",
    "run_task",
    "run_tasks",
    "settle",
    "wait_for_successor",
    "wait_until",
]
