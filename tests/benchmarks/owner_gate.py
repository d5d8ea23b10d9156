"""What an owner's gate costs: of each value that passes it, and on a FedAvg round without training.

The same rounds over 8 nodes of this machine, by turns without a policy and with one that limits
tags, sizes and numbers of all that leaves. Budget: 2 % of a round.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from manta.cli.local import cluster as local
from manta.node.policy.gate import Gate
from manta.node.policy.rules import Leaves
from manta.protocol.node import Instance, ResultWritten
from manta.protocol.values import Inline
from tests.benchmarks._measure import spread
from tests.benchmarks.round import NODES, run

POLICY = """\
new_keys = "first"
[[rule]]
results = ["trained", "model", "evaluated"]
largest = "1 GB"
most = 1000000
exchange = "any"
failures = "any"
"""
TURNS, CALLS = 3, 100_000
VALUES = 3
"""That pass the gates of all nodes in a round, for each node: a result, a global and an output."""


@contextmanager
def policy(text: str) -> Iterator[None]:
    """Nodes that are started have it."""
    plain: Any = local.node_config
    with tempfile.TemporaryDirectory(prefix="manta-bench-") as folder:
        path = Path(folder) / "policy.toml"
        path.write_text(text)
        lines = f'[policy]\nfile = "{path}"\n'
        local.node_config = lambda *args: plain(*args) + lines
        try:
            yield
        finally:
            local.node_config = plain


def seconds_of_a_value() -> float:
    """One that passes."""
    gate = Gate(SimpleNamespace())  # type: ignore[arg-type]  # nothing is stopped
    at = Instance("s", "only", 0, 0)
    gate.begins(at, Leaves((("trained", "model"),), largest=10**9, most=10**9))
    entry = ResultWritten(at, "trained", Inline(b"x" * 1000))
    began = time.perf_counter()
    for _ in range(CALLS):
        assert not gate.flaw(entry, 0.0)
    return (time.perf_counter() - began) / CALLS


def main() -> None:
    without, limited = list[float](), list[float]()
    for _ in range(TURNS):
        without += run(0.4, 2)[0][1:]
        with policy(POLICY):
            limited += run(0.4, 2)[0][1:]
    usual = statistics.median(without)
    print(f"a round without a policy: {spread(without)}")
    print(
        f"    with one: {spread(limited)}, {statistics.median(limited) / usual:.3f}x; budget 1.02x"
    )
    one = seconds_of_a_value()
    part = one * VALUES * NODES / usual
    print(f"a value at the gate: {one * 1e6:.1f} us; {VALUES * NODES} of a round: {part:.3%} of it")


if __name__ == "__main__":
    main()
