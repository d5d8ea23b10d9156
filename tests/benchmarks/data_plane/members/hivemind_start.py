"""Peers of hivemind's table on this machine, until all have met: `hivemind_start.py PEERS`.

Each is a process of its own, as a script of one's own would be. It joins by the first one, stores
its name, and has met the others once it reads the names of all. Prints how long that took from the
start of this program, in seconds, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

KEY = "peers"
LOOK = 0.02
"""Seconds between looks at who is there."""
AT_MOST = 100.0


def peer(name: str, count: int, door: str) -> None:
    from hivemind import DHT
    from hivemind.utils import get_dht_time

    dht: Any = DHT(
        initial_peers=[door] if door else [],
        host_maddrs=["/ip4/127.0.0.1/tcp/0"],
        start=True,
    )
    try:
        if not door:
            print(dht.get_visible_maddrs()[0], flush=True)
        dht.store(KEY, subkey=name, value=1, expiration_time=get_dht_time() + 300)
        until = time.monotonic() + AT_MOST
        while time.monotonic() < until:
            found = dht.get(KEY, latest=True)
            if found is not None and len(found.value) >= count:
                print("there", time.time(), flush=True)
                break
            time.sleep(LOOK)
        sys.stdin.readline()  # the others still read from it
    finally:
        dht.shutdown()


def main(peers: str) -> None:
    began, count = time.time(), int(peers)
    begun: list[subprocess.Popen[str]] = []

    def begin(name: str, door: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, name, peers, door],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        begun.append(child)
        return child

    first = begin("peer-0", "")
    assert first.stdout is not None
    door = first.stdout.readline().strip()
    for number in range(1, count):
        begin(f"peer-{number}", door)
    last = 0.0
    for child in begun:
        assert child.stdout is not None
        last = max(last, float(child.stdout.readline().split()[1]))
    print(json.dumps([last - began]))
    for child in begun:
        child.communicate("\n")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        peer(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main(sys.argv[1])
