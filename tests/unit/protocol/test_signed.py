"""Swarms are signed by who deploys them, and a node finds whatever else an order says."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from manta.apis import Module, Swarm, Task
from manta.apis.compile.spec import compile_swarm
from manta.apis.connect.session import Session
from manta.manager.placement.place import Placement
from manta.manager.swarm.events import Created, Placed, Started
from manta.manager.swarm.machine import SwarmMachine
from manta.protocol.node import Assignment
from manta.protocol.signed import fingerprint, is_by_its_key, public_of, sign
from manta.protocol.spec import SwarmSpec
from manta.protocol.user import SendSwarm
from manta.protocol.values import BlobRef
from manta.transports.security.keys import KeyPair

SECRET = KeyPair.generate().secret
NONCE, ALIAS = "0" * 32, "code"


class Study(Swarm):
    """Sums of a table,
    for the yearly report.

    What else there is to say.
    """

    def __init__(self) -> None:
        code = "def main():\n    pass\n"
        module = Module(code, name="code", datasets=["ward"], resources={"cpu": 1})
        self.only = Task(module, datasets=["more"], timeout=10, class_name=None)


def deployed(spec: SwarmSpec | None = None) -> Assignment:
    """The order that a manager makes of what was sent over a wire."""
    spec = spec or sign(compile_swarm(Study()).spec, SECRET, NONCE, 1.0)
    sent = msgspec.msgpack.decode(msgspec.msgpack.encode(SendSwarm("lab", spec)), type=SendSwarm)
    machine = SwarmMachine("s", "c")
    machine.handle(Created(sent.spec), 1.0)
    machine.handle(Started(), 1.0)
    machine.handle(Placed(1, (Placement(0, "n", "n"),)), 1.0)
    [order] = machine.desired()["n"]
    order = msgspec.structs.replace(order, signed=machine.data.graph.signed(ALIAS))
    return msgspec.msgpack.decode(msgspec.msgpack.encode(order), type=Assignment)


def test_an_order_is_by_the_key_that_signed_the_swarm() -> None:
    order = deployed()
    assert order.signed is not None
    assert order.signed.signed.key == public_of(SECRET)
    assert order.signed.description == "Sums of a table, for the yearly report."
    assert (order.datasets, order.timeout) == (("ward", "more"), 10.0)
    assert is_by_its_key(order)


def test_what_a_node_is_free_to_be_told_is_not_signed() -> None:
    order = deployed()
    other = msgspec.structs.replace(order.instance, iteration=7, index=3)
    assert is_by_its_key(msgspec.structs.replace(order, instance=other, size=9, seed=4))


OTHER = {
    "swarm_name": "Another",
    "class_name": "Worker",
    "datasets": ("ward", "more", "salaries"),
    "outbound": ("outbound:elsewhere.example:443",),
    "resources": None,
    "timeout": None,
    "priority": 9,
    "gpu": True,
    "collect": "references",
}


@pytest.mark.parametrize(("name", "value"), OTHER.items())
def test_an_order_that_says_something_else_is_not(name: str, value: Any) -> None:
    assert not is_by_its_key(msgspec.structs.replace(deployed(), **{name: value}))


def test_nor_is_one_for_another_task_or_with_other_code_or_of_another_deployment() -> None:
    order, replace = deployed(), msgspec.structs.replace
    assert order.signed is not None
    evil = replace(order.module, package=BlobRef("0" * 64, 3))
    assert not is_by_its_key(replace(order, module=evil))
    assert not is_by_its_key(replace(order, module=replace(order.module, image="evil")))
    assert not is_by_its_key(replace(order, instance=replace(order.instance, alias="other")))
    for changed in (
        replace(order.signed, description="Nothing that matters"),
        replace(order.signed, signature=bytes(64)),
        replace(order.signed, signature=b""),
        replace(order.signed, signed=replace(order.signed.signed, nonce="1" * 32)),
        replace(order.signed, signed=replace(order.signed.signed, at=2.0)),
        replace(order.signed, signed=replace(order.signed.signed, key=public_of("x" * 40))),
    ):
        assert not is_by_its_key(replace(order, signed=changed))


def test_who_signed_nothing_has_no_proof() -> None:
    spec = compile_swarm(Study()).spec
    assert deployed(spec).signed is None
    assert not is_by_its_key(deployed(spec))


def test_a_session_signs_with_the_key_of_its_profile_each_time_anew() -> None:
    keys = KeyPair.generate()
    session = Session(None, keys)  # type: ignore[arg-type]
    spec = compile_swarm(Study()).spec
    one, two = session.signed(spec).signed, session.signed(spec).signed
    assert one is not None
    assert two is not None
    assert one.key == two.key == public_of(keys.secret)
    assert one.nonce != two.nonce
    assert len(fingerprint(one.key)) == 39
    assert fingerprint(one.key) != fingerprint(public_of(SECRET))
