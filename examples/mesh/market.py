"""Work that goes to those that offer room for it.

    manta mesh run examples/mesh/market.py --peers 4

Peer 0 has frames to render, and no room; each other one offers as much as its number says.
"""

from __future__ import annotations

import threading

from manta import Mesh

FRAMES = 12


def main() -> None:
    with Mesh.join() as mesh:
        number = int(mesh.name.rpartition("-")[2])
        with mesh.market(capacity=2 * number) as market:
            if number == 0:
                market.offer("frames", FRAMES)
                outcome = market.outcome("frames")
                print(f"{outcome.done} of {FRAMES} frames are done, {outcome.unplaced} unplaced")
                mesh.broadcast("over", True)
            else:
                is_over = threading.Event()
                threading.Thread(
                    target=lambda: (mesh.get_broadcast("over"), is_over.set()), daemon=True
                ).start()
                while not is_over.is_set():
                    for part in market.parts(timeout=0.2):
                        print(f"{mesh.name} renders {part.units} {part.work}")
                        market.done(part)
            mesh.barrier()


if __name__ == "__main__":
    main()
