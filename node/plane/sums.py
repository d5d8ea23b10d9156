"""What attempts tell others whose owner lets values leave in sums alone.

What such an attempt brings to an all_reduce leaves for the planes of the nodes that take part, each
of which reduces a range of it; their tasks are given what comes of it. So a call that brings a
value must be one that planes reduce, and to a sum or mean: the least of several values, or their
product with ones, is one of them. It must not go on without some, and must be of as many nodes as
the owner says, of which the meeting sees to the last (`collectives/meeting.py`): where instances
are changes. Calls that bring nothing are as anybody's. None says anything to others in its words
or its value's form, which messages quote to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import msgspec

from manta.node.plane.channels import Ask
from manta.node.plane.collectives.given import OWNER
from manta.node.plane.requests import (
    CallCollective,
    Handed,
    PlaneRequest,
    SayToAll,
    SendLetter,
)
from manta.node.policy.rules import MOST_LEFT, SumLimit
from manta.protocol.base import Instance
from manta.transports.collectives.calls import Kind

OPS = frozenset({"sum", "mean"})


class Summing(msgspec.Struct):
    """One attempt."""

    limit: SumLimit
    left: int = 0
    """Values that have left of it, and of attempts before it."""


class Sums:
    """The attempts that are limited so."""

    def __init__(
        self,
        stopped: Callable[[Instance, int, str], None],
        summed: Callable[[Instance, int], None],
    ) -> None:
        """`stopped` is told what may not leave: how many bytes, and why; `summed` what may."""
        self._stopped = stopped
        self._summed = summed
        self._of: dict[Instance, Summing] = {}

    def begin(self, at: Instance, limit: SumLimit | None) -> None:
        if limit is not None:
            self._of[at] = Summing(limit, limit.before)

    def end(self, at: Instance) -> None:
        self._of.pop(at, None)

    def admits(self, ask: Ask) -> bool:
        """Whether what it tells others may leave; else it has failed."""
        one, body = self._of.get(ask.at), ask.body
        if one is None:
            return True
        brings = _brings(body)
        if why := _flaw(body, one) if brings else _said(body):
            self._stopped(ask.at, size_of(body), why)
            ask.fail("RequestFailed", f"The owner of this node lets not all leave: {why}.")
            return False
        if not brings:
            return True
        one.left += 1
        size = size_of(body)
        ask.nodes, ask.failed = one.limit.nodes, partial(self._failed, ask.at, size)
        self._summed(ask.at, size)
        return True

    def _failed(self, at: Instance, size: int, sentence: str) -> None:
        if sentence.startswith(OWNER):
            self._stopped(at, size, sentence.rstrip("."))


def size_of(body: PlaneRequest) -> int:
    """In bytes, of what a request brings."""
    if isinstance(body, CallCollective):
        return sum(body.sizes)
    value = getattr(body, "value", None)
    return value.size if isinstance(value, Handed) else len(value or b"")


def _brings(body: PlaneRequest) -> bool:
    if isinstance(body, CallCollective):
        return body.room is not None or body.value is not None or bool(body.sizes)
    return isinstance(body, SendLetter | SayToAll)


def _flaw(body: PlaneRequest, one: Summing) -> str:
    limit = one.limit
    if not isinstance(body, CallCollective) or body.kind is not Kind.ALL_REDUCE:
        what = body.words.partition("(")[0] if isinstance(body, CallCollective) else "a message"
        return (
            f"values leave in sums of {limit.nodes} nodes or more alone, and {what} gives this one "
            "to other tasks: call all_reduce(value, private=True)"
        )
    if said := _said(body):
        return said
    if body.op not in OPS:
        return f"values leave in sums and means alone, and the {body.op} of some may be one of them"
    if body.goes_on:
        return 'a sum must not go on without some of its values: leave on_peer_lost="continue" out'
    if limit.largest is not None and size_of(body) > limit.largest:
        return f"it has {size_of(body):,} bytes, and {limit.largest:,} may leave"
    if limit.most is not None and one.left >= limit.most:
        return f"{limit.most} {MOST_LEFT}"
    return ""


def _said(body: PlaneRequest) -> str:
    """What is wrong with the words with which a call comes."""
    if not isinstance(body, CallCollective):
        return ""
    if body.forms:
        return "the form of a value may have words in it: call all_reduce(value, private=True)"
    if not re.fullmatch(_words(body), body.words):
        return f"what a {body.kind.value} is called with has to be what it is"
    return ""


def _words(body: CallCollective) -> str:
    """A pattern of how a call is quoted to others, which has its options alone."""
    operation = body.kind.value
    if body.kind is Kind.ALL_REDUCE:
        lost = r"(, on_peer_lost='continue')?"
        dtype = "(, dtype='[a-z]{1,9}[0-9]{0,3}')?"
        return rf"{operation}\(op='{re.escape(body.op)}'{dtype}{lost}(, private=True)?\)"
    return rf"{operation}(\(root={body.root}\))?"
