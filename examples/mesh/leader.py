"""One peer leads, and another one when that ends.

    manta mesh run examples/mesh/leader.py --peers 4

The leader is the peer with the lowest id; each has an epoch, by which orders of a former one are
told from its own.
"""

from __future__ import annotations

import os

from manta import Mesh


def main() -> None:
    mesh = Mesh.join()
    count = mesh.size
    with mesh.leader("example") as leader:
        first = leader.wait()
        print(f"{mesh.name}: {'I lead' if first.is_me else 'another leads'}, epoch {first.epoch}")
        mesh.barrier()
        if first.is_me:
            os._exit(0)  # without a word
        second = leader.wait(after=first.epoch)
        print(f"{mesh.name}: {'I lead' if second.is_me else 'another leads'} now")
        assert second.leader != first.leader
        while mesh.size == count:  # the loss is told in a call
            mesh.all_reduce(1, on_peer_lost="continue")
        epochs = set(mesh.all_gather(second.epoch))
        if second.is_me:
            print(f"all {mesh.size} that are left follow in one epoch: {len(epochs) == 1}")
    mesh.leave()


if __name__ == "__main__":
    main()
