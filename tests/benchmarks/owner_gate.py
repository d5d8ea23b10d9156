"""What an owner's policy costs: of each order, each value, and on a FedAvg round without training.

The same rounds over 8 nodes of this machine, by turns without a policy and with one that limits
tags, sizes and numbers of all that leaves. Budget: 2 % of a round. What one order and one value
take is processor time: on a busy machine rounds differ from each other by more than that.
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
from manta.node.policy.admission import Admission
from manta.node.policy.gate import Gate
from manta.node.policy.records import OwnerRecords
from manta.node.policy.rules import Leaves, Verdict
from manta.protocol.node import Assignment, Instance, ResultWritten
from manta.protocol.signed import sign
from manta.protocol.spec import ModuleSpec, SignedOrder, SwarmSpec, TaskSpec
from manta.protocol.values import BlobRef, Inline
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
ORDERS, VALUES = NODES + 1, 2 * (NODES + 1)
"""Of a round: a worker on each node and an aggregator, each with a result or global and an
output."""


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


def seconds_of_an_order() -> float:
    """One that is let in: its signature, the rules, and what the owner has said."""
    module = ModuleSpec("worker", BlobRef("d" * 64, 3), datasets=("ward",))
    spec = SwarmSpec("Study", (TaskSpec("only", "worker"),), (module,))
    spec = sign(spec, "s" * 40, "0" * 32, 1.0)
    assert spec.signed is not None
    signed = SignedOrder(spec.signed, spec.tasks[0].signature)
    order = Assignment(
        Instance("s", "only", 0, 0), module, "Study", "n", 1,
        datasets=("ward",), user="ada@uni.example", signed=signed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="manta-bench-") as folder:
        path = Path(folder) / "policy.toml"
        path.write_text(POLICY)
        door = Admission(path, OwnerRecords(Path(folder) / "owner"), lambda _: "bwrap")
        began = time.process_time()
        for _ in range(CALLS // 100):
            assert door.rule(order, 1.0).verdict is Verdict.ALLOW
        return (time.process_time() - began) / (CALLS // 100)


def seconds_of_a_value() -> float:
    """One that passes."""
    gate = Gate(SimpleNamespace())  # type: ignore[arg-type]  # nothing is stopped
    at = Instance("s", "only", 0, 0)
    gate.begins(at, Leaves((("trained", "model"),), largest=10**9, most=10**9))
    entry = ResultWritten(at, "trained", Inline(b"x" * 1000))
    began = time.process_time()
    for _ in range(CALLS):
        assert not gate.flaw(entry, 0.0)
    return (time.process_time() - began) / CALLS


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
    order, value = seconds_of_an_order(), seconds_of_a_value()
    part = (order * ORDERS + value * VALUES) / usual
    print(f"an order at the door: {order * 1e6:.0f} us; a value at the gate: {value * 1e6:.1f} us")
    print(f"    {ORDERS} orders and {VALUES} values of a round: {part:.2%} of it; budget 2 %")


if __name__ == "__main__":
    main()
