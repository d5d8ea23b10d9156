"""A ring all-reduce by hand, beside `all_reduce`.

    manta mesh run examples/mesh/ring.py --peers 4 -- --picture ring.png

Each peer adds to what its left neighbor has told it and passes that on to the right one, a part of
the array at a time (Patarasuk and Yuan 2009): 2 (n - 1) messages of an n-th of the array.
`all_reduce` does the same with less waiting, and names whoever is lost.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from pictures import draw

from manta import Mesh


def ring_sum(mesh: Mesh, array: Any, tag: str) -> Any:
    size, rank, peers = mesh.size, mesh.rank, mesh.peers
    left, right = peers[(rank - 1) % size], peers[(rank + 1) % size]
    parts = np.array_split(array.copy(), size)
    for step in range(size - 1):
        given, taken = (rank - step) % size, (rank - step - 1) % size
        mesh.send(right, f"{tag} add {step}", parts[given])
        parts[taken] = parts[taken] + mesh.receive(left, f"{tag} add {step}")
    for step in range(size - 1):
        given, taken = (rank - step + 1) % size, (rank - step) % size
        mesh.send(right, f"{tag} pass {step}", parts[given])
        parts[taken] = mesh.receive(left, f"{tag} pass {step}")
    return np.concatenate(parts)


def timed(mesh: Mesh, call: Callable[[int], Any], times: int) -> tuple[Any, float]:
    """What comes of it, and the median of its seconds."""
    found = []
    for number in range(times):
        mesh.barrier()
        began = time.perf_counter()
        result = call(number)
        found.append(time.perf_counter() - began)
    return result, float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--most", type=int, default=22, help="the largest array has 2**MOST numbers"
    )
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--picture")
    options = parser.parse_args()
    sizes, hand, own = [], [], []
    with Mesh.join() as mesh:
        for power in range(10, options.most + 1, 2):
            array = np.full(2**power, mesh.rank, dtype="float32")
            by_hand, slow = timed(
                mesh, lambda n, a=array: ring_sum(mesh, a, f"{len(a)} {n}"), options.times
            )
            summed, fast = timed(mesh, lambda _, a=array: mesh.all_reduce(a), options.times)
            assert np.array_equal(by_hand, summed)
            sizes.append(array.nbytes / 2**10)
            hand.append(1000 * slow)
            own.append(1000 * fast)
            if mesh.rank == 0:
                print(f"{array.nbytes:>9,} bytes, the same sum twice")
        if mesh.rank == 0 and options.picture:
            curves = {"ring by hand": (sizes, hand), "all_reduce": (sizes, own)}
            title = f"A sum of float32 among {mesh.size} peers of one machine"
            draw(options.picture, curves, title, "KiB", "milliseconds", log="xy")


if __name__ == "__main__":
    main()
