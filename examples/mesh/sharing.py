"""A list of items that peers divide among themselves, slow ones and fast ones.

    manta mesh run examples/mesh/sharing.py --peers 4 -- --picture sharing.png

Each peer begins with its part; who has none left takes half of what another has (work stealing).
Items differ in how long they take; the first ones take longest.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from pictures import draw

from manta import Mesh
from manta.light.exchange import Peer


def named(one: tuple[Peer, list[float]]) -> str:
    return one[0].node_alias


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument("--longest", type=float, default=0.05, help="seconds")
    parser.add_argument("--picture")
    options = parser.parse_args()
    with Mesh.join() as mesh, mesh.share(options.items) as shared:
        began, at = time.monotonic(), [0.0]
        for item in shared.items():
            time.sleep(options.longest * (1 - item.number / options.items))
            shared.done(item, item.number**2)
            at.append(time.monotonic() - began)
        done = shared.wait()
        all_times = mesh.all_gather(at)
        if mesh.rank == 0:
            names = {peer.node_id: peer.node_alias for peer in mesh.peers}
            counts = Counter(names[one.worker] for one in done)
            print("the sum of the squares is", sum(one.result for one in done))
            for name, count in sorted(counts.items()):
                print(f"{name} did {count}")
            if options.picture:
                curves = {
                    peer.node_alias: (times, range(len(times)))
                    for peer, times in sorted(zip(mesh.peers, all_times, strict=True), key=named)
                }
                title = f"{options.items} items, the longest first, among {mesh.size} peers"
                draw(options.picture, curves, title, "seconds", "items done")


if __name__ == "__main__":
    main()
