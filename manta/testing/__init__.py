"""Helpers for tests: of Manta, and of swarms."""

from manta.testing.actors import (
    FakeClock,
    InjectedCrash,
    crash,
    run_for,
    settle,
    wait_for_successor,
)

__all__ = ["FakeClock", "InjectedCrash", "crash", "run_for", "settle", "wait_for_successor"]
