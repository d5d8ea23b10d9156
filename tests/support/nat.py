"""Nodes in networks of their own, which reach each other through a router, if that forwards.

`python -m tests.support.nat SCENARIO` is run in a namespace that a test makes (unshare(1)), and is
the router and the relay; it starts a process for each node, in a namespace of its own. Nothing
leaves them.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from manta.protocol.peers import Peer
from manta.transports.sealed.peer import BulkPeer
from tests.support.planes import Node, Place, Planes, TaskEnd

PORT = 50061
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def command(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def forward(allowed: bool) -> None:
    """Whether the router lets the nodes reach each other: else it drops their packets."""
    FORWARD.write_text(str(int(allowed)))


def wait(condition: Callable[[], object], timeout: float = 45.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not come about in {timeout:g} s"
        time.sleep(0.05)


class Remote:
    """A node in its own network, at 10.0.NUMBER.2."""

    def __init__(self, number: int, relay: tuple[str, str]) -> None:
        self.host = f"10.0.{number}.2"
        ours, theirs = f"to{number}", f"of{number}"
        self.process = subprocess.Popen(
            ["unshare", "-n", sys.executable, "-P", "-m", "tests.support.nat", "node", str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "here\n"
        pid = str(self.process.pid)
        command("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", pid)
        command("ip", "address", "add", f"10.0.{number}.1/24", "dev", ours)
        command("ip", "link", "set", ours, "up")
        told = self("begin", theirs, *relay)
        self.peer = Peer(told["id"], told["alias"], told["key"], tuple(told["addresses"]))

    def __call__(self, what: str, *arguments: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([what, *arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, "the process of a node has ended"
        return json.loads(line)

    @property
    def link(self) -> str:
        """How it is linked with the other: "direct", "relayed" or "down"."""
        found: str = self("link")
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Here:
    """The process of a node; what a lab calls are its methods."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.host = f"10.0.{number}.2"
        self.end: TaskEnd | None = None
        self.folder = TemporaryDirectory()

    def begin(self, device: str, address: str, key: str) -> dict[str, Any]:
        for words in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "address", "add", f"{self.host}/24", "dev", device),
            ("ip", "link", "set", device, "up"),
            ("ip", "route", "add", "default", "via", f"10.0.{self.number}.1"),
        ):
            command(*words)
        place = Place(host=self.host, relay=(address, key), port=PORT, bulk_port=PORT + 1)
        self.node = Node(self.number, Path(self.folder.name), place)
        self.lab = Planes([self.node])
        peer = self.node.peer
        return {
            **dict(zip(("id", "alias", "key"), peer_words(peer), strict=True)),
            "addresses": peer.addresses,
        }

    def meet(self, peers: list[list[Any]]) -> None:
        known = [Peer(id_, alias, key, tuple(where)) for id_, alias, key, where in peers]
        nodes: Any = [self.node if one.node_id == self.node.id else Known(one) for one in known]
        self.lab.nodes = nodes
        self.lab.introduce_to(self.node)
        self.lab.enroll(told=[self.node])
        if self.end is None:
            self.end = self.node.attempt(self.lab.at(self.number - 1))
            self.end.socket.socket.settimeout(50)

    def send(self, tag: str, size: int) -> str:
        value = random.Random(tag).randbytes(size)
        assert self.end is not None
        self.end.call("send_letter", to=f"id-{3 - self.number}", tag=tag, value=value, timeout=50.0)
        return hashlib.sha256(value).hexdigest()

    def begin_receive(self, tag: str) -> None:
        assert self.end is not None
        source = f"id-{3 - self.number}"
        self.end.begin("receive_letter", source=source, tag=tag, number=0, timeout=50.0)

    def received(self) -> str:
        assert self.end is not None
        return hashlib.sha256(self.end.end()).hexdigest()

    def link(self) -> str:
        [state] = self.node.run(lambda: list(self.node.plane.links.states()))
        return "down" if not state.is_up else "relayed" if state.is_relayed else "direct"

    def moved(self) -> list[int]:
        bulk = self._bulk()
        return [bulk.sent, bulk.received]

    def is_makeshift(self) -> bool:
        """Whether large values go over the link until there is a better way."""
        return self._bulk().is_makeshift

    def _bulk(self) -> BulkPeer:
        [state] = self.node.run(lambda: list(self.node.plane.links.states()))
        return self.node.bulk.peer(state.peer.key)

    def close(self) -> None:
        if self.end is not None:
            self.end.close()
        self.node.close()


class Known:
    """A node of which another knows."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.id, self.alias = peer, peer.node_id, peer.alias


def peer_words(peer: Peer) -> tuple[str, str, str]:
    return peer.node_id, peer.alias, peer.key


def serve(number: int) -> None:
    here = Here(number)
    print("here", flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        print(json.dumps(getattr(here, what)(*arguments)), flush=True)
    here.close()


# --- scenarios --------------------------------------------------------------------------------


def exchange(one: Remote, two: Remote, tag: str, size: int = 2_000_000) -> None:
    for sender, receiver in ((one, two), (two, one)):
        digest = sender("send", tag + sender.host, size)
        receiver("begin_receive", tag + sender.host)
        assert receiver("received") == digest


def nobody(one: Remote, two: Remote) -> None:
    """Behind two routers, as it were, until a way opens."""
    forward(False)
    meet(one, two)
    exchange(one, two, "relayed")
    assert (one.link, two.link) == ("relayed", "relayed")
    forward(True)
    wait(lambda: (one.link, two.link) == ("direct", "direct"))
    exchange(one, two, "direct")


def one_way(one: Remote, two: Remote) -> None:
    """Only the second may connect."""
    forward(True)
    drop = ("FORWARD", "-p", "tcp", "--syn", "-s", one.host, "-d", two.host, "-j", "DROP")
    command("iptables", "-A", *drop)
    meet(one, two)
    wait(lambda: (one.link, two.link) == ("direct", "direct"))
    exchange(one, two, "x")


def one_port(one: Remote, two: Remote) -> None:
    """A firewall lets connections to the port for links pass, and no others."""
    forward(True)
    drop = ("FORWARD", "-p", "tcp", "--syn", "!", "--dport", str(PORT), "-j", "DROP")
    command("iptables", "-A", *drop)
    meet(one, two)
    wait(lambda: (one.link, two.link) == ("direct", "direct"))
    exchange(one, two, "x")
    assert (one.link, two.link) == ("direct", "direct")
    assert one("is_makeshift")
    assert two("is_makeshift")
    command("iptables", "-D", *drop)
    wait(lambda: not one("is_makeshift") and not two("is_makeshift"))
    exchange(one, two, "y")


def midway(one: Remote, two: Remote) -> None:
    """A firewall appears while a value is under way."""
    size = 48 << 20
    forward(True)
    meet(one, two)
    wait(lambda: (one.link, two.link) == ("direct", "direct"))
    slow = ["rate", "100mbit", "burst", "256kb", "latency", "50ms"]
    command("tc", "qdisc", "add", "dev", "to2", "root", "tbf", *slow)
    digest = one("send", "large", size)
    two("begin_receive", "large")
    wait(lambda: two("moved")[1] > 2 << 20)
    forward(False)
    assert two("received") == digest
    assert (one.link, two.link) == ("relayed", "relayed")
    sent = one("moved")[0]
    assert sent <= size + (4 << 20), f"{sent} bytes were sent of {size}"


def meet(*nodes: Remote) -> None:
    words = [[*peer_words(node.peer), node.peer.addresses] for node in nodes]
    for node in nodes:
        node("meet", words)


SCENARIOS = {each.__name__: each for each in (nobody, one_way, one_port, midway)}


def main() -> None:
    if sys.argv[1] == "node":
        serve(int(sys.argv[2]))
        return
    from tests.integration.node.test_plane_relays import Relay

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    command("ip", "link", "set", "lo", "up")
    with ExitStack() as undo:
        relay = Relay(host="0.0.0.0")
        undo.callback(relay.close)
        port = relay.at[0].rpartition(":")[2]
        nodes = []
        for number in (1, 2):
            at = f"tcp://10.0.{number}.1:{port}", relay.at[1]
            nodes.append(Remote(number, at))
            undo.callback(nodes[-1].close)
        relay.admit(*nodes)  # type: ignore[arg-type]
        SCENARIOS[sys.argv[1]](*nodes)


if __name__ == "__main__":
    main()
