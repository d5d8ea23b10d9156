"""Whoever holds the key of a node that was admitted to the cluster."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from manta.actors.wire import Answer, Failure
from manta.cli.local.cluster import CLUSTER
from manta.protocol.base import Instance
from manta.protocol.enrolment import Enroll, Inquire
from manta.protocol.exchange import ReadMessage
from manta.protocol.node import Capabilities, ListGlobals, ReadGlobal, Register, SelectResults
from manta.transports.security.keys import KeyPair
from tests.attacks.field import MIB, Attack, Place, Told
from tests.attacks.guest import REFUSALS, Guest, noise
from tests.support.swarms import One

SECONDS = 6.0


def _node(place: Place) -> Guest:
    """A node of the cluster, which has enrolled and registered."""
    keys, alias = KeyPair.generate(), f"evil-{secrets.token_hex(4)}"
    with place.connect() as admin:
        token = admin.create_node_token(CLUSTER)
    guest = Guest(place.nodes, place.key, keys)
    guest.greet()
    enrolled = guest.ask(Enroll(str(token), alias, "random"))
    assert isinstance(enrolled, Answer), enrolled
    guest.close()
    node = Guest(place.nodes, place.key, keys)
    node.greet()
    registered = node.ask(Register(alias, Capabilities(hostname=alias, cores=1)))
    assert isinstance(registered, Answer), registered
    return node


def curiosity(place: Place) -> Told:
    """It asks again and again for what a swarm has that runs on the other nodes."""
    told, asked, late = 0, 0, 0.0
    with place.connect() as admin:
        swarm = One(
            "import time\nfrom manta.light import World\n"
            "def main():\n    World().results.add('r', 1)\n    time.sleep(3600)\n"
        )
        swarm.set_global("secret", 42)
        deployed = admin.deploy_swarm(CLUSTER, swarm)
        next(iter(admin.stream_results(deployed, tag="r", attempts="all")))
        node = _node(place)
        try:
            swarm_id = deployed.swarm_id
            at = Instance(swarm_id, "task", 0, 0, 0)
            questions = cycle(
                (
                    ReadGlobal(swarm_id, "secret"),
                    ListGlobals(swarm_id),
                    SelectResults(swarm_id, "r", 0),
                    ReadMessage(at, "node-1", "t", 0),
                )
            )
            began = time.monotonic()
            while (now := time.monotonic()) < began + SECONDS:
                said = node.ask(next(questions))
                asked, late = asked + 1, max(late, time.monotonic() - now)
                told += not isinstance(said, Failure)
        finally:
            node.close()
            admin.stop_swarm(deployed, force=True)
            admin.remove_swarm(deployed)
    words = f"{told} of {asked} answers told something; one was {late * 1000:.0f} ms late"
    return Told(words, words if told else "", since=began)


def endless(place: Place) -> Told:
    """On one connection after another, until the node is turned away."""
    node, sent = _node(place), list[int]()
    keys = node.client.keys
    until = time.monotonic() + 4
    while True:
        try:
            part = node.client.endless(noise(65536))
            sent.append(node.client.flood(part, most=512 * MIB, seconds=8))
        finally:
            node.close()
        try:
            node = Guest(place.nodes, place.key, keys, timeout=1.0)
        except REFUSALS:
            break
        if time.monotonic() > until:
            node.close()
            break
    words = f"{len(sent)} connections cut, after {max(sent) / MIB:.1f} MiB at most"
    return Told(words, "one was not cut" if max(sent) >= 512 * MIB else "")


def _inquiries(place: Place, until: float) -> int:
    asked, guest = 0, None
    while time.monotonic() < until:
        try:
            if guest is None:
                guest = Guest(place.nodes, place.key)
                guest.greet()
            guest.ask(Inquire())
            asked += 1
        except REFUSALS:
            guest = None
            time.sleep(0.05)
    return asked


def _of_a_user(place: Place, until: float) -> int:
    asked = 0
    _, public, secret = place.people[3]
    with place.connect(KeyPair(public, secret)) as api:
        while time.monotonic() < until:
            api.list_clusters()
            asked += 1
    return asked


def _of_a_node(place: Place, until: float) -> int:
    asked, node = 0, _node(place)
    try:
        while time.monotonic() < until:
            node.ask(ListGlobals("0" * 16))
            asked += 1
    finally:
        node.close()
    return asked


def questions(place: Place) -> Told:
    """As many as are answered, of a guest, a user and a node at once."""
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(3) as threads:
        asking = [
            threads.submit(asks, place, until) for asks in (_inquiries, _of_a_user, _of_a_node)
        ]
        each = ", ".join(f"{one.result() / SECONDS:.0f}" for one in asking)
    return Told(f"{each} answers a second")


ATTACKS = [
    Attack("node", f"it asks for what it does not run for {SECONDS:g} s", curiosity),
    Attack("node", "a message without an end", endless),
    Attack("all", f"a guest, a user and a node ask for {SECONDS:g} s", questions),
]
