"""Aggregating 1,000 updates of 1,000,000 float32: time beside numpy's own accumulation, and memory.

Goals: at most 1.3 times the time of a bare accumulation over the same arrays, at most 3 models of
memory. Both go over the same eight updates again and again, in turns of 100, and the least time of
each is compared, as other work on the machine only adds. Then what strategies cost that need all
updates together, with 16 of them.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from manta.light.federated import (
    Compressed,
    EightBit,
    FedAdam,
    FedAvg,
    FedAvgM,
    GeometricMedian,
    Median,
    MultiKrum,
    OneBit,
    RandomK,
    Strategy,
    TopK,
    TrimmedMean,
    aggregate,
)

UPDATES, SIZE, TURNS, AT_A_TIME = 1000, 1_000_000, 20, 100
GOAL = 1.3
ALL = 16


def seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main() -> None:
    draw = np.random.default_rng(1)
    model = {"w": draw.normal(size=SIZE).astype(np.float32)}
    pool = [draw.normal(size=SIZE).astype(np.float32) for _ in range(8)]
    numbers = range(AT_A_TIME)

    def bare() -> object:
        total, weights = np.zeros(SIZE, np.float32), 0.0
        for number in numbers:
            weight = float(number % 7 + 1)
            total += pool[number % 8] * weight
            weights += weight
        return model["w"] + total / weights

    def ours() -> object:
        updates = ((f"c{n}", {"w": pool[n % 8]}, n % 7 + 1) for n in numbers)
        return aggregate(FedAvg(), model, updates)

    times = [(seconds(bare), seconds(ours)) for _ in range(TURNS * UPDATES // AT_A_TIME)]
    beside, mine = (min(column) * UPDATES / AT_A_TIME for column in zip(*times, strict=True))
    print(
        f"1,000 updates in {mine:.2f} s: {mine / beside:.2f} times numpy's accumulation "
        f"({beside:.2f} s); goal {GOAL}"
    )
    for strategy in (FedAvg(), FedAvgM(), FedAdam()):
        print(f"{type(strategy).__name__}: {memory(strategy, model, pool):.2f} models of memory")
    print(f"\nWith {ALL} updates:")
    for strategy in (
        *(Median(), TrimmedMean(trim=2), GeometricMedian(iterations=10)),
        MultiKrum(byzantine=2),
    ):
        updates = [(f"c{n:02}", {"w": pool[n % 8] + np.float32(n)}, 1.0) for n in range(ALL)]
        took = seconds(lambda s=strategy, u=updates: aggregate(s, model, u))  # type: ignore[misc]
        print(f"{type(strategy).__name__:16} {took:6.2f} s")
    print("\nOne update, compressed by a client and decoded by the server:")
    for codec in (TopK(0.01), RandomK(0.01), EightBit(), OneBit()):
        packing = Compressed(FedAvg(), codec)
        trained = {"w": model["w"] + pool[0]}
        client = packing.client(model)
        encoding = seconds(lambda c=client, t=trained: c.finish(t))  # type: ignore[misc]
        update = packing.client(model).finish(trained).update
        decoding = seconds(
            lambda p=packing, u=update: aggregate(p, model, [("a", u, 1)])  # type: ignore[misc]
        )
        share = sum(part.nbytes for part in update.values()) / model["w"].nbytes
        print(
            f"{type(codec).__name__:8} {encoding * 1000:5.0f} ms  {decoding * 1000:5.0f} ms"
            f"  {share:6.1%} of the bytes"
        )


def memory(strategy: Strategy, model: dict[str, np.ndarray], pool: list[np.ndarray]) -> float:
    """Models of memory at the peak of a round, beside the model and the updates."""
    tracemalloc.start()
    try:
        aggregate(strategy, model, ((f"c{n}", {"w": pool[n % 8]}, 3) for n in range(20)))
        return tracemalloc.get_traced_memory()[1] / model["w"].nbytes
    finally:
        tracemalloc.stop()
