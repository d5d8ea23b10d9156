"""Draws how fast gossip averaging should be, by topology: `python examples/mesh/expected.py`.

No peer is started: this is what the theory says, with which a run can be compared.
"""

from __future__ import annotations

import sys
from pathlib import Path

from averaging import errors
from curves import curves

from manta.roster.chance import chance
from manta.roster.topologies import Topology

TOPOLOGIES = ("ring", "star", "torus", "random-regular:4:1", "full")


def drawn(size: int = 16, rounds: int = 40) -> str:
    values = {rank: chance("value", rank) for rank in range(size)}
    found = {text: errors(Topology.of(text), values, rounds) for text in TOPOLOGIES}
    return curves(
        {name.partition(":")[0]: series for name, series in found.items()},
        f"Gossip averaging among {size} peers",
        "round",
        "distance from the mean",
    )


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "expected.svg")
    target.write_text(drawn())
    print(f"Wrote {target}.")
