"""Gossip averaging, by topology: each peer knows a number, and all come to know the mean of all.

    manta mesh run examples/mesh/gossip.py --peers 8 -- --picture gossip.png

Peers exchange letters with their neighbors alone. The error of all is gathered for the picture;
`expected.py` draws what it should be.
"""

from __future__ import annotations

import argparse

from averaging import averaged, error
from pictures import draw

from manta import Mesh
from manta.roster.topologies import Topology

TOPOLOGIES = ("ring", "star", "torus", "random-regular:4:1", "full")
LEAST = 1e-12


def gossip(mesh: Mesh, topology: Topology, value: float, rounds: int) -> list[float]:
    """The error before the first round, and after each."""
    near = [mesh.peers[rank] for rank in topology.neighbors(mesh.rank, mesh.size)]
    mean = mesh.all_reduce(value, op="mean")
    errors = [error(dict(enumerate(mesh.all_gather(value))), mean)]
    for number in range(rounds):
        tag = f"{topology} {number}"
        for peer in near:
            mesh.send(peer, tag, [value, len(near)])
        heard = {peer.rank: tuple(mesh.receive(peer, tag)) for peer in near}
        value = averaged(value, len(near), heard)
        errors.append(error(dict(enumerate(mesh.all_gather(value))), mean))
    return errors


def shown(errors: list[float]) -> tuple[range, list[float]]:
    """Up to where it is too small to matter."""
    until = next((number for number, one in enumerate(errors) if one < LEAST), len(errors))
    found = [*errors[:until], LEAST] if until < len(errors) else errors
    return range(len(found)), found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--picture")
    options = parser.parse_args()
    series = {}
    with Mesh.join() as mesh:
        for text in TOPOLOGIES:
            errors = gossip(mesh, Topology.of(text), float(mesh.rank**2 % 7), options.rounds)
            series[text.partition(":")[0]] = errors
            if mesh.rank == 0:
                print(f"{text}: the error after {options.rounds} rounds is {errors[-1]:.2g}")
        if mesh.rank == 0 and options.picture:
            curves = {name: shown(errors) for name, errors in series.items()}
            title = f"Gossip averaging among {mesh.size} peers"
            draw(options.picture, curves, title, "round", "distance from the mean", log="y")


if __name__ == "__main__":
    main()
