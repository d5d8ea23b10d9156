"""Two machines with peers of a mesh, each in a network of its own, joined by a cable.

`python -m tests.support.machines SCENARIO` is run in a namespace that a test makes (unshare(1)). It
starts a process for each machine, in a namespace of its own. Nothing leaves them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from manta import Mesh
from tests.support.conversation import Conversation
from tests.support.nat import command

SECRET = "what all of them know"
PATIENCE = 60.0
HOSTS = "10.0.0.1", "10.0.0.2"


class Remote(Conversation):
    """A machine, as the test has it: what it asks are the methods of `Here`."""

    def __init__(self, name: str, undo: ExitStack) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [
                "unshare",
                "-n",
                sys.executable,
                "-P",
                "-m",
                "tests.support.machines",
                "machine",
                name,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        undo.callback(self.close)
        self.answer()

    def __call__(self, what: str, *arguments: Any) -> Any:
        self.begin(what, *arguments)
        return self.answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


def both(machines: list[Remote], what: str, *arguments: Any) -> list[Any]:
    """At the same time."""
    for machine in machines:
        machine.begin(what, *arguments)
    return [machine.answer() for machine in machines]


class Here:
    """The process of a machine."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.peers: list[Mesh] = []
        self.pool = ThreadPoolExecutor(16)

    def plug(self, address: str) -> None:
        command("ip", "link", "set", "lo", "up")
        command("ip", "address", "add", f"{address}/24", "dev", self.name)
        command("ip", "link", "set", self.name, "up")

    def cable(self, state: str) -> None:
        """Up or down."""
        command("ip", "link", "set", self.name, state)

    def wall(self, first: int, last: int) -> None:
        """Lets others connect to ports of this range only."""
        inside = ("!", "--dport", f"{first}:{last}")
        arrives = ("-A", "INPUT", "-i", self.name, "-p", "tcp", "--syn")
        command("iptables", *arrives, *inside, "-j", "DROP")

    def move(self, former: str, address: str) -> None:
        """The machine has another address."""
        command("ip", "address", "del", f"{former}/24", "dev", self.name)
        command("ip", "address", "add", f"{address}/24", "dev", self.name)

    def join(self, count: int, listen: str, peers: list[str]) -> list[str]:
        """The addresses of further peers, each of which joins by those, or else by the first."""
        for _ in range(count):
            others = peers or [mesh.address for mesh in self.peers[:1]]
            name = f"{self.name}-{len(self.peers)}"
            self.peers.append(
                Mesh.join(listen, others, SECRET, name=name, timeout=PATIENCE)  # one by one: ranks
            )
        return [mesh.address for mesh in self.peers]

    def wait(self, size: int) -> list[str]:
        """Who is in the view of this machine's peers, which is the same for all of them."""
        list(self.pool.map(lambda mesh: mesh.wait(size, PATIENCE), self.peers))
        (names,) = {tuple(peer.node_alias for peer in mesh.peers) for mesh in self.peers}
        return list(names)

    def count(self) -> list[list[Any]]:
        """A sum of ones at all peers, those that it went on without, and who is there then."""

        def counted(mesh: Mesh) -> list[Any]:
            names = [peer.node_alias for peer in mesh.peers]
            found = mesh.all_reduce(1, on_peer_lost="continue", timeout=PATIENCE)
            left_out = sorted(names[rank] for rank in mesh.left_out)
            return [found, left_out, sorted(peer.node_alias for peer in mesh.peers)]

        return list(self.pool.map(counted, self.peers))

    def send(self, to: str, value: Any) -> None:
        for mesh in self.peers:
            mesh.send(to, "letter", [mesh.name, value], PATIENCE)

    def receive(self, source: str) -> list[Any]:
        return [mesh.receive(source, "letter", PATIENCE) for mesh in self.peers]

    def happens(self, event: str, name: str) -> bool:
        """Waits until the first peer here says so."""
        told = self.peers[0].events(PATIENCE)
        return any(one["event"] == event and one.get("name") == name for one in told)

    def addresses(self, name: str) -> list[str]:
        """As the first peer here knows them."""
        peers = self.peers[0].status()["peers"]
        return next(one["addresses"] for one in peers if one["name"] == name)

    def close(self) -> None:
        list(self.pool.map(Mesh.leave, self.peers))


def serve(name: str) -> None:
    here = Here(name)
    print("null", flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(here, what)(*arguments)), flush=True)
    here.close()


# --- scenarios --------------------------------------------------------------------------------


def parted(one: Remote, two: Remote) -> None:
    """Five and three, which go on by themselves and become one mesh again."""
    machines = [one, two]
    first = one("join", 5, HOSTS[0], [])[:1]
    two("join", 3, HOSTS[1], first)
    names = both(machines, "wait", 8)
    assert names[0] == names[1]
    everybody = sorted(names[0])
    sides = [sorted(name for name in everybody if name.startswith(one.name)) for one in machines]
    assert list(map(len, sides)) == [5, 3]
    assert both(machines, "count") == [[[8, [], everybody]] * 5, [[8, [], everybody]] * 3]
    one("cable", "down")
    for machine, side, other in zip(machines, sides, reversed(sides), strict=True):
        missing: set[str] = set()
        while True:
            found = machine("count")
            assert found == found[:1] * len(side), "peers of one side differ"
            ones, left_out, there = found[0]
            assert set(left_out) <= set(other)
            missing.update(left_out)
            if there == side and not left_out:
                break
        assert ones == len(side)
        assert missing == set(other)
    one("cable", "up")
    names = both(machines, "wait", 8)
    assert names[0] == names[1]
    assert sorted(names[0]) == everybody
    assert both(machines, "count") == [[[8, [], everybody]] * 5, [[8, [], everybody]] * 3]


def moved(one: Remote, two: Remote) -> None:
    """A machine has another address while its peer is in a mesh."""
    (door,) = one("join", 1, "0.0.0.0", [])
    port = door.rpartition(":")[2]
    two("join", 1, HOSTS[1], [f"{HOSTS[0]}:{port}"])
    both([one, two], "wait", 2)
    one("move", HOSTS[0], "10.0.0.9")
    assert two("happens", "moved", "one-0")
    (address,) = two("addresses", "one-0")
    assert address.startswith("tcp://10.0.0.9:")
    two("join", 1, HOSTS[1], [f"10.0.0.9:{port}"])
    both([one, two], "wait", 3)
    found = both([one, two], "count")
    assert [len(of) for of in found] == [1, 2]
    assert all(ones == 3 for of in found for ones, _, _ in of)
    one("send", "two-0", "here")
    two("send", "one-0", "there")
    assert one("receive", "two-0") == [["two-0", "there"]]


def walled(one: Remote, two: Remote) -> None:
    """A firewall lets others connect to the three ports of one peer, and to nothing else."""
    one("wall", 7000, 7002)
    two("wall", 9, 9)
    (door,) = one("join", 1, f"{HOSTS[0]}:7000", [])
    assert door == f"{HOSTS[0]}:7000"
    two("join", 1, HOSTS[1], [door])
    both([one, two], "wait", 2)
    assert both([one, two], "count") == [[[2, [], ["one-0", "two-0"]]]] * 2
    large = "x" * 2_000_000
    one("send", "two-0", large)
    two("send", "one-0", large)
    assert two("receive", "one-0") == [["one-0", large]]
    assert one("receive", "two-0") == [["two-0", large]]


SCENARIOS = {each.__name__: each for each in (parted, moved, walled)}


def main() -> None:
    if sys.argv[1] == "machine":
        serve(sys.argv[2])
        return
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    with ExitStack() as undo:
        machines = [Remote("one", undo), Remote("two", undo)]
        pids = [str(machine.process.pid) for machine in machines]
        cable = ("ip", "link", "add", "one", "type", "veth", "peer", "name", "two")
        command(*cable)
        for machine, pid in zip(machines, pids, strict=True):
            command("ip", "link", "set", machine.name, "netns", pid)
        for machine, host in zip(machines, HOSTS, strict=True):
            machine("plug", host)
        SCENARIOS[sys.argv[1]](*machines)


if __name__ == "__main__":
    main()
