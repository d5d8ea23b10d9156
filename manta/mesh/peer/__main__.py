"""The process of a peer of a mesh: `python -m manta.mesh.peer FD PLACE`, the place as JSON.

It ends with your process, whose end of the socket is then closed.
"""

from __future__ import annotations

import sys

import msgspec

from manta.mesh.peer.join import Place
from manta.mesh.peer.process import run

if __name__ == "__main__":
    run(int(sys.argv[1]), msgspec.json.decode(sys.argv[2], type=Place))
