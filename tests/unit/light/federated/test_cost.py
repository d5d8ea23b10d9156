"""Memory does not grow with the number of clients, nor the time to import with what is not used."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from manta.light.federated import (
    SCAFFOLD,
    Clipped,
    Compressed,
    EightBit,
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedBuff,
    FedNova,
    FedYogi,
    Median,
    Strategy,
    aggregate,
)

SIZE, CLIENTS = 100_000, 200
MODEL = {"w": np.zeros(SIZE, np.float32), "b": np.zeros(10, np.float32)}


def peak(strategy: Strategy, clients: int) -> float:
    """Models of memory at most, beside the model itself and one update."""
    params = MODEL
    moved = {name: array + 1 for name, array in MODEL.items()}

    def updates() -> Iterator[tuple[str, Any, float]]:
        for number in range(clients):
            update = strategy.client(params).finish(moved, steps=1, learning_rate=0.1).update
            yield f"c{number}", update, 2.0

    tracemalloc.start()
    try:
        aggregate(strategy, params, updates())
        return tracemalloc.get_traced_memory()[1] / MODEL["w"].nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "strategy",
    [
        FedAvg(),
        FedAvgM(),
        FedAdam(),
        FedNova(),
        SCAFFOLD(total_weight=CLIENTS),
        FedBuff(buffer_size=5),
        Clipped(FedAvg(), 1.0),
        Compressed(FedAvg(), EightBit()),
    ],
    ids=repr,
)
def test_what_streams_takes_as_much_for_many_clients_as_for_few(strategy) -> None:
    few, many = peak(strategy, 5), peak(strategy, CLIENTS)
    assert many < few + 1


def test_a_mean_takes_three_models_at_most() -> None:
    update = {name: array + 1 for name, array in MODEL.items()}
    scratch = 2**19 * 4 / MODEL["w"].nbytes  # as much for any model
    tracemalloc.start()
    try:
        aggregate(FedAvg(), MODEL, ((f"c{n}", update, 2.0) for n in range(CLIENTS)))
        models = tracemalloc.get_traced_memory()[1] / MODEL["w"].nbytes - scratch
    finally:
        tracemalloc.stop()
    assert models <= 3


@pytest.mark.parametrize("strategy", [FedAvgM(), FedAdagrad(), FedAdam(), FedYogi()], ids=repr)
def test_with_the_servers_state_it_is_three_models_and_what_is_worked_on(
    strategy: Strategy,
) -> None:
    model = {"w": np.zeros(4_000_000, np.float32)}
    update = {"w": model["w"] + 1}
    blocks = 8 * 65_536 * 4 / model["w"].nbytes
    tracemalloc.start()
    try:
        aggregate(strategy, model, ((f"c{n}", update, 2.0) for n in range(3)))
        models = tracemalloc.get_traced_memory()[1] / model["w"].nbytes
    finally:
        tracemalloc.stop()
    assert models <= 3 + blocks


def test_what_needs_all_updates_takes_as_many() -> None:
    assert peak(Median(), 20) > 20


IMPORTED = """
import sys, numpy
before = set(sys.modules)
import manta.light.federated as federated
used = set(sys.modules) - before
federated.FedAvg, federated.Compressed, federated.Krum, federated.SCAFFOLD, federated.statistics
more = set(sys.modules) - before
print(len(used), len(more), *sorted(name for name in more if not name.startswith("manta")))
"""


def test_it_imports_nothing_that_numpy_has_not_imported() -> None:
    run = [sys.executable, "-c", IMPORTED]
    used, more, *others = subprocess.run(
        run, check=True, capture_output=True, text=True
    ).stdout.split()
    assert int(used) <= 4
    assert int(more) <= 30
    assert not {"torch", "sklearn", "asyncio", "msgpack"} & set(others)


def test_without_numpy_it_says_what_is_missing() -> None:
    code = "import sys; sys.modules['numpy'] = None; from manta.light import federated as f; {}"
    for use in ("f.FedAvg().start({'w': 1})", "f.statistics.moments([1])"):
        run = [sys.executable, "-c", code.format(use)]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert "MissingPackage: manta.light.federated needs numpy" in done.stderr
