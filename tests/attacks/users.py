"""Users who are signed in: one without a role, and one who may do all in a cluster."""

from __future__ import annotations

import contextlib
import time

from manta.apis.errors import MantaError
from manta.cli.local.cluster import CLUSTER
from manta.transports.blobs.memory_depot import MemoryDepot
from manta.transports.bulk.curve import CurveBulk
from manta.transports.errors import TransportError
from manta.transports.security.keys import KeyPair
from tests.attacks.field import MIB, Attack, Place, Told
from tests.attacks.guest import REFUSALS, Guest, noise
from tests.support.swarms import One

SECONDS = 3.0


def _user(place: Place, number: int, **quotas: int) -> tuple[str, KeyPair]:
    """The address and the key of one of the people there, with these quotas."""
    address, public, secret = place.people[number]
    with place.connect() as admin:
        for name, limit in quotas.items():
            admin.set_quota(name.replace("_", "-"), limit, user=address)
    return address, KeyPair(public, secret)


def clusters(place: Place) -> Told:
    """As many as there may be: each once cost the manager a thread for ever."""
    _, keys = _user(place, 0)
    made = refused = 0
    until = time.monotonic() + SECONDS
    with place.connect(keys) as api:
        while made < 500 and time.monotonic() < until:
            try:
                api.create_cluster(f"c-{made}")
                made += 1
            except MantaError:
                refused += 1
    return Told(f"{made} made, {refused} refused", "" if refused else "none was refused")


def blobs(place: Place) -> Told:
    """Bytes that nothing names, up to a quota of 32 MiB."""
    _, keys = _user(place, 1, unnamed_bytes=32 * MIB)
    depot = MemoryDepot(512 * MIB)
    plane = CurveBulk(keys, depot)
    pushed = refused = 0
    until = time.monotonic() + SECONDS
    try:
        peer = plane.dial(place.bulk, place.key)
        while pushed < 100 and time.monotonic() < until:
            digest = depot.put(noise(MIB))
            try:
                peer.push(digest, MIB, timeout=20).result(20)
                pushed += 1
            except TransportError:
                refused += 1
    finally:
        plane.close()
        depot.close()
    words = f"{pushed} MiB taken, {refused} refused"
    return Told(words, "more than 32 MiB" if pushed > 32 else "")


def endless_bulk(place: Place) -> Told:
    """Messages without an end over the bulk port, by a user who is deleted meanwhile."""
    address, keys = _user(place, 2)
    sent: list[int] = []
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            guest = Guest(place.bulk, place.key, keys, timeout=1.0)
        except REFUSALS:
            continue
        try:
            part = guest.client.endless(noise(65536))
            sent.append(guest.client.flood(part, most=512 * MIB, seconds=8))
        finally:
            guest.close()
        if len(sent) == 3:
            with place.connect() as admin:
                admin.delete_user(address)
    words = "cut after " + ", ".join(f"{one / MIB:.1f}" for one in sent) + " MiB"
    return Told(words, "it was not cut" if max(sent, default=0) >= 512 * MIB else "")


def swarms(place: Place) -> Told:
    """As many that never end as there may be. No node can run them: all of it is the manager's."""
    made = 0
    address, keys = _user(place, 4)
    with place.connect() as admin:
        admin.grant_role(address, CLUSTER, "researcher")
    with place.connect(keys) as api:
        deployed = []
        with contextlib.suppress(MantaError):
            while made < 500:
                swarm = One("def main():\n    pass\n", datasets=["nowhere"])
                deployed.append(api.deploy_swarm(CLUSTER, swarm, wait=True))
                made += 1
        for one in deployed:
            api.stop_swarm(one, force=True)
            api.remove_swarm(one)
    return Told(f"{made} live, then refused", "none was refused" if made == 500 else "")


ATTACKS = [
    Attack("no role", "clusters, as many as there may be", clusters),
    Attack("no role", "values that nothing names", blobs),
    Attack("no role", "bulk messages without an end, also once deleted", endless_bulk),
    Attack("researcher", "swarms that never end, as many as there may be", swarms),
]
