"""Peers of which one ends: `manta mesh run mesh_loss.py --peers N -- SIGNAL`.

Each prints a word and a time: "there" when all have met, the one that ends "ends", and the others
"named" when they hear of that. Without a signal they leave as soon as they are there.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from manta import Mesh

LONGEST = 30.0


def say(word: str) -> None:
    print(word, time.time(), flush=True)


def main(*signals: str) -> None:
    with Mesh.join() as mesh:
        say("there")
        if not signals:
            return
        victim = mesh.peers[-1]
        if mesh.rank == victim.rank:
            mesh.send(mesh.peers[0], "pid", os.getpid())
        pid = mesh.receive(victim, "pid") if mesh.rank == 0 else 0
        mesh.barrier()
        time.sleep(1.0)  # what joining costs is over
        if mesh.rank == victim.rank:
            say("ends")
            os.kill(os.getpid(), signal.Signals[f"SIG{signals[0]}"])
        for event in mesh.events(LONGEST):
            if event["event"] == "died":
                say("named")
                break
        if pid:
            time.sleep(3.0)  # until the others have named it
            os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
