"""About how much memory the state of a swarm takes. Pure.

What is packed counts as it is, and what is not by the sizes of what users and tasks chose, with
something for the objects around it. A look at a state of 1 GiB takes some ten milliseconds, so it
is taken as often as the state has grown by a part of itself (`bounds`).
"""

from __future__ import annotations

import msgspec

from manta.manager.swarm.exchange import Exchange
from manta.manager.swarm.letters import Load, size_of
from manta.manager.swarm.packed import encode
from manta.manager.swarm.state import Attempt, SwarmData
from manta.protocol.spec import SwarmSpec, TaskSpec

LETTER, NAME, COUNT, CHANNEL, CLAIM, ATTEMPT = 500, 250, 120, 1200, 200, 2000
THING = 600
"""Bytes of what is kept beside a value, as measured: of a letter or what is said to all, of what is
found by a name, of a count of letters, of a channel, of a claim, of an attempt; and of a task,
module, network or iteration that a swarm describes."""

STEP = 16 << 20
"""Bytes by which a state grows at least before it is weighed again."""


def weigh(data: SwarmData) -> int:
    return packed(data) + unpacked(data)


def packed(data: SwarmData) -> int:
    return sum(one.packed_size for one in data.packed.values())


def unpacked(data: SwarmData) -> int:
    """What a snapshot stores each time."""
    feeds = sum(map(_encoded, (*data.results.tail, *data.metrics.tail, *data.events.tail)))
    runs = sum(
        ATTEMPT + _attempt(attempt)
        for iteration in data.runs.tail
        for run in iteration.values()
        for instance in run.instances
        for attempt in instance.attempts
    )
    globals_ = sum(NAME + len(tag) + size_of(one.value) for tag, one in data.globals.items())
    tags = sum(NAME + len(tag) for _, tag in data.by_tag)
    numbers = 36 * (len(data.results) + len(data.settled) + len(data.deleted))
    blobs = NAME * (len(data.replaced) + len(data.lasting) + data.staying.names)
    waits = NAME * (len(data.timers) + len(data.asks))
    described = spec(data.spec) if data.spec is not None else 0
    own = feeds + runs + globals_ + tags + numbers + blobs + waits
    return described + own + exchange(data.exchange)


def spec(spec: SwarmSpec) -> int:
    """Of a swarm's description, without its globals: a short name takes more than it says."""
    names = sum(map(_names, spec.tasks))
    names += sum(len(one.datasets) + len(one.requirements) for one in spec.modules)
    names += 3 * sum(len(one.edges) for one in spec.networks)
    names += sum(1 + len(entry.aliases) for entries in spec.schedule for entry in entries)
    things = len(spec.tasks) + len(spec.modules) + len(spec.networks) + len(spec.schedule)
    said = _encoded(msgspec.structs.replace(spec, globals={}))
    return said + COUNT * names + THING * things


def _names(task: TaskSpec) -> int:
    lists = (task.after, task.excepted_ids or (), task.specified_ids or (), task.datasets)
    return sum(map(len, lists))


def exchange(said: Exchange) -> int:
    post = said.post
    channels = sum(
        CHANNEL + len(route.tag) + CLAIM * channel.claims
        for route, channel in post.channels.items()
    )
    counts = sum(map(len, post.sent.values())) + sum(map(len, post.known.values()))
    kinds = sum(len(kind) for one in said.collectives.values() for kind in one.kinds.values())
    names = [*(tag for _, tag in said.broadcasts), *said.locks]
    queued = CLAIM * sum(map(len, said.locks.values()))
    return (
        _load(post.kept)
        + _load(said.kept)
        + channels
        + COUNT * counts
        + NAME * (2 * len(post.boxes) + len(said.collectives) + len(said.blobs))
        + kinds
        + sum(NAME + len(name) for name in names)
        + queued
    )


def _load(load: Load) -> int:
    return load.size + LETTER * load.letters


def _attempt(attempt: Attempt) -> int:
    error = _encoded(attempt.error) if attempt.error is not None else 0
    said = sum(map(_encoded, attempt.nexts))
    return size_of(attempt.output) + error + said + 36 * len(attempt.written)


def _encoded(item: object) -> int:
    return len(encode(item))
