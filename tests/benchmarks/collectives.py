"""What a collective costs apart from its links.

The machines' own time, for all that one peer decides in one collective; and the speed of the
kernel that reduces, into memory that is there, with the memory that it takes meanwhile.
"""

from __future__ import annotations

import time
import tracemalloc
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from manta.node.reduction.forms import Leaf, Source
from manta.node.reduction.kernel import Kernel
from manta.transports.collectives.actions import Deliver, Reduce, Send, Tell
from manta.transports.collectives.calls import Call, Entry, Kind, Placement
from manta.transports.collectives.collective import Collective
from manta.transports.collectives.planner import ridden

MB = 1_000_000
CHUNK = 512 * 1024
RUNS = 5


def collective(kind: Kind, peers: int, size: int) -> tuple[float, int]:
    """Seconds for each peer, and how many chunks each receives."""
    placement = Placement.of("bench", [f"node-{peer}" for peer in range(peers)])
    call = Call(kind, kind.value, itemsize=4, local_first=True)
    sizes: tuple[int, ...] = (size,)
    machines = [Collective(placement, peer) for peer in range(peers)]
    events: deque[tuple[int, Any, tuple[Any, ...]]] = deque()
    chunks = delivered = 0
    for peer in range(peers):
        entry = Entry(call, sizes)
        data = {to: bytes(size) for to in ridden(entry, peer, placement)}
        events.append((peer, machines[peer].contributed, (peer, entry, data)))
    start = time.perf_counter()
    while events:
        peer, event, arguments = events.popleft()
        for action in event(*arguments):
            if isinstance(action, Tell):
                events.append((action.peer, machines[action.peer].heard, (peer, action.message)))
            elif isinstance(action, Send):
                key, to, span = action.transfer
                for upto in (*range(CHUNK, span.stop - span.start, CHUNK), span.stop - span.start):
                    events.append((to, machines[to].received, (key, upto)))
                    chunks += 1
                events.append((peer, machines[peer].sent, (key,)))
            elif isinstance(action, Reduce):
                events.append((peer, machines[peer].reduced, (action.number,)))
            elif isinstance(action, Deliver):
                delivered += 1
    assert delivered == peers
    return (time.perf_counter() - start) / peers, chunks // peers


def kernel(op: str, dtype: str, count: int, threads: int) -> tuple[float, int]:
    """GB/s of sources in the fastest run, and the bytes of memory that it took at most."""
    generator = np.random.default_rng(0)
    size = 100 * MB
    values = [generator.integers(0, 100, size, np.uint8) for _ in range(count)]
    if dtype not in ("int8", "int32"):  # numbers of which none is NaN
        values = [generator.random(size // 4, np.float32).view(np.uint8) for _ in range(count)]
    target = np.zeros(size, np.uint8)
    made = Kernel(op, [Leaf(0, size, dtype)], count)
    step = 1 << 20

    def reduce(start: int) -> None:
        stop = min(start + step, size)
        sources = [Source(value.data[start:stop]) for value in values]
        made.reduce(start, target.data[start:stop], sources, count)

    seconds = []
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(RUNS):
            began = time.perf_counter()
            list(pool.map(reduce, range(0, size, step)))
            seconds.append(time.perf_counter() - began)
    tracemalloc.start()
    reduce(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return count * size / 1e9 / min(seconds), peak


def main() -> None:
    for kind, peers, size in (
        (Kind.ALL_REDUCE, 4, 64 * 1024),
        (Kind.ALL_REDUCE, 33, 16 * 1024),
        (Kind.ALL_REDUCE, 4, MB),
        (Kind.ALL_REDUCE, 16, MB),
        (Kind.ALL_REDUCE, 4, 100 * MB),
        (Kind.ALL_REDUCE, 33, 100 * MB),
        (Kind.ALL_GATHER, 4, 100 * MB),
    ):
        times = [collective(kind, peers, size) for _ in range(RUNS)]
        seconds = min(each for each, _ in times)
        print(
            f"{kind.value} of {size / 1000:,.0f} kB, {peers} peers: {seconds * 1e6:,.0f} us for "
            f"each, which receives {times[0][1]} chunks"
        )
    print()
    for op, dtype, count, threads in (
        ("sum", "float32", 2, 1),
        ("sum", "float32", 4, 1),
        ("mean", "float32", 4, 1),
        ("max", "float32", 4, 1),
        ("sum", "float32", 4, 2),
        ("mean", "float16", 4, 1),
        ("mean", "bfloat16", 4, 1),
        ("sum", "int32", 4, 1),
        ("sum", "int8", 4, 1),
    ):
        speed, peak = kernel(op, dtype, count, threads)
        print(
            f"{op} of {count} times 100 MB {dtype}, {threads} threads: {speed:.1f} GB/s of "
            f"sources, {100 * count / speed:,.0f} ms, {peak / 1000:,.0f} kB of memory meanwhile"
        )


if __name__ == "__main__":
    main()
