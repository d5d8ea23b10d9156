"""A manager that restarts, and its clock."""

from __future__ import annotations

from manta.manager.cluster.lease import Leases
from manta.manager.swarm.events import ManagerRestarted, Paused, Resumed
from manta.protocol.node import TaskStarted


def test_after_a_restart_no_deadline_ends_at_once(bench, make):
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.wait_for(1000)
    b.feed(ManagerRestarted())
    assert b.machine.next_deadline() == b.now + 20


def test_after_a_restart_the_lease_is_over_before_an_attempt_counts_as_silent(bench, make):
    """Else a crashed node's task would be reported to have timed out."""
    b = bench(make.task("w", method="any", timeout=5.0))
    (w,) = b.running("w").values()
    b.say(w, TaskStarted(w, b.now))
    b.wait_for(1000)
    b.feed(ManagerRestarted())
    assert b.machine.next_deadline() > b.now + Leases().restart_grace + Leases().grace


def test_a_restart_in_a_pause_on_another_clock_costs_nothing(bench, make):
    """The pause is left out once, not twice."""
    b = bench(make.task("w", quorum=0.5, deadline=5.0))
    b.feed(Paused())
    b.wait_for(600)
    b.feed(ManagerRestarted())
    b.wait_for(30)
    b.feed(Resumed())
    assert b.machine.next_deadline() == b.now + 5


def test_time_never_runs_backwards(bench, make):
    b = bench(make.task("w", method="any"))
    b.now -= 600
    b.finish("w")
    (seen,) = b.tasks()
    assert seen.ended_at == seen.placed_at == 1000
