"""What `manta check` and `manta explain` show."""

from __future__ import annotations

from manta.cli.plans import plan_lines
from manta.protocol.user import PlacedInstance, Plan


def test_what_keeps_a_placed_swarm_waiting_comes_before_where_it_runs() -> None:
    notice = "node-2 has been silent for 5 s and counts as lost in 15 s if it does not come back."
    plan = Plan((PlacedInstance("w", 0, "id2", "node-2", "bwrap"),), notices=(notice,))
    lines = [str(line) for line in plan_lines(plan, None)]
    assert lines[0] == notice
    assert lines[-1].split() == ["w.0", "node-2", "bwrap"]
