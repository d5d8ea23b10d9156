"""A mesh that loses a third of its peers, and goes on.

    manta mesh run examples/mesh/third.py --peers 6 -- --picture third.png

All add their gradients of one function up, again and again. After a while the last third of the
peers ends without a word. One call names them; those that are left go on from the next one.
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
from pictures import draw

from manta import Mesh
from manta.light.errors import PeerLost

RATE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--picture")
    options = parser.parse_args()
    mesh = Mesh.join()
    goal, model = np.arange(4.0), np.zeros(4)
    ends = mesh.rank >= mesh.size - mesh.size // 3
    began, step, marks = time.monotonic(), 0, {}
    at, sizes, distances = [], [], []
    while step < options.steps:
        if ends and step == options.steps // 2:
            os._exit(0)  # no farewell: as if its power was cut
        try:
            gradient = mesh.all_reduce(model - goal, op="mean")
        except PeerLost as error:
            now = time.monotonic() - began
            marks["it is told"] = now
            at += [now, now]
            sizes += [sizes[-1], mesh.size]
            distances += [distances[-1]] * 2
            print(f"{mesh.name} goes on with {mesh.size}: {error}")
            continue  # the same step again, with those that are left
        model, step = model - RATE * gradient, step + 1
        at.append(time.monotonic() - began)
        sizes.append(mesh.size)
        distances.append(float(np.linalg.norm(model - goal)))
        time.sleep(0.02)  # in place of computing
    if mesh.rank == 0:
        print(f"{mesh.size} peers are left, at a distance of {distances[-1]:.3f}")
        if options.picture:
            curves = {"peers": (at, sizes), "distance from the goal": (at, distances)}
            draw(options.picture, curves, "A third of the peers ends", "seconds", "", marks=marks)
    mesh.leave()


if __name__ == "__main__":
    main()
