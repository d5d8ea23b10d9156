"""Asks the manager over the network: is it there, is it the right one, will it admit this node?

The node's own key is used only while no daemon uses it, because a manager keeps one connection
per key. Otherwise, or if there is no key yet, a temporary key is used.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from manta.node.doctor.report import Finding, fault, ok, warning
from manta.node.link import sentences as link_sentences
from manta.protocol import enrolment
from manta.protocol.paths import GATEWAY
from manta.protocol.version import VERSION
from manta.transports.errors import DownReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from manta.actors.remote import RemoteRef
    from manta.node.config import NodeConfig
    from manta.transports.security.keys import KeyPair

PATIENCE = 6.0
ASK = 5.0
MOST_SKEW = 20.0
"""Seconds; tokens are refused beyond 30."""


def examine(
    config: NodeConfig, manager_key: str, keys: KeyPair | None, *, enrolled: bool, token: str
) -> Iterator[Finding]:
    """`keys` are the node's own, if they may be used; `token` is examined unless it is ""."""
    from manta.actors import ActorSystem
    from manta.transports.security.keys import KeyPair
    from manta.transports.zeromq.transport import ZmqTransport

    states: list[DownReason | None] = []
    moved = threading.Event()

    def on_state(reason: DownReason | None) -> None:
        states.append(reason)
        if reason is not DownReason.CONNECTING:
            moved.set()

    system = ActorSystem("doctor", transport=ZmqTransport(keys or KeyPair.generate()))
    try:
        connection = system.dial(config.manager_address, manager_key, on_state=on_state)
        moved.wait(PATIENCE)
        reason = states[-1] if states else DownReason.SILENT
        if reason is None:
            gateway = connection.ref(GATEWAY)
            yield from _ask(gateway, config, keys, enrolled=enrolled, token=token)
            return
        if reason is DownReason.CONNECTING:
            reason = DownReason.SILENT
        yield _down(reason, config, enrolled=enrolled and keys is not None)
    finally:
        system.stop()


def _down(reason: DownReason, config: NodeConfig, *, enrolled: bool) -> Finding:
    words = link_sentences.down(reason, config.manager_address, str(config.path), enrolled=enrolled)
    sentence, _, remedy = words.partition(": ")
    remedy = remedy.partition("; the node keeps")[0].rstrip(".")
    sentence = sentence.removesuffix("; the node keeps trying.").rstrip(".")
    return fault(
        "manager",
        f"{reason}: {sentence}.",
        f"{remedy}." if remedy else "Look at the manager's log.",
    )


def _ask(
    gateway: RemoteRef, config: NodeConfig, keys: KeyPair | None, *, enrolled: bool, token: str
) -> Iterator[Finding]:
    from manta.actors import ActorError, Refused

    asked = time.time()
    try:
        standing = gateway.ask(enrolment.Inquire(), timeout=ASK)
    except ActorError as error:
        yield fault(
            "manager",
            f"The manager at {config.manager_address} does not say who it is: {error}",
            f"Bring both to one version; this one is {VERSION}.",
        )
        return
    yield _port(standing, config)
    skew = standing.wall - (asked + time.time()) / 2
    if abs(skew) > MOST_SKEW:
        ahead = "ahead of" if skew > 0 else "behind"
        yield warning(
            "clock",
            f"The manager's clock is {abs(skew):.0f} s {ahead} this machine's.",
            "Let both follow a time server (NTP).",
        )
    else:
        yield ok("clock", f"The manager's clock and this one differ by {abs(skew):.1f} s.")
    if enrolled and keys is not None:
        yield _known(standing)
    if token:
        try:
            gateway.ask(enrolment.ExamineToken(token), timeout=ASK)
            yield ok("token", "The manager takes the token.")
        except Refused as error:
            sentence, _, remedy = error.sentence.partition("; ")
            what = warning if enrolled else fault
            yield what("token", f"{sentence}.", remedy)
        except ActorError as error:
            yield warning("token", f"The manager did not look at the token: {error}", "Try again.")


def _port(standing: enrolment.Standing, config: NodeConfig) -> Finding:
    where = f"manager {standing.version} at {config.manager_address}"
    if wrong := link_sentences.at_the_wrong_port(standing, config):
        sentence, _, remedy = wrong.partition(": ")
        return fault("manager", f"{sentence}.", remedy)
    if standing.version.split(".")[0] != VERSION.split(".")[0]:
        return warning(
            "manager",
            f"The {where} is of another version than this node, {VERSION}.",
            "Bring both to one.",
        )
    return ok("manager", f"The {where} answers, and holds the key that this node expects.")


def _known(standing: enrolment.Standing) -> Finding:
    if standing.node_id:
        return ok("identity", f"The manager knows this node as {standing.node_id}.")
    what = "has removed this node" if standing.removed else "does not know this node's key"
    return fault(
        "identity", f"The manager {what}.", "Enrol it with a new token (manta node token CLUSTER)."
    )
