"""Reads a swarm's state from the store, and takes no more memory for it than it may."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from manta.manager.context import Context
from manta.manager.errors import NotLoaded
from manta.manager.store.interface import Store, StoredEvent
from manta.manager.store.records import SwarmRecord
from manta.manager.swarm import snapshots, weight
from manta.manager.swarm.events import decode_log
from manta.manager.swarm.machine import SwarmMachine
from manta.protocol.states import SwarmState
from manta.transports.codec.stored import Damaged

Log = logging.LoggerAdapter[logging.Logger]


def load(
    context: Context, record: SwarmRecord | None, swarm_id: str, cluster_id: str, log: Log
) -> tuple[SwarmMachine, int]:
    """The machine, and the event as of which its snapshot is. Raises NotLoaded, StoreError."""
    quotas, owner_id = context.quotas, record.owner_id if record else ""
    is_over = record is not None and SwarmState(record.info.status).final

    def hold(size: int) -> None:
        who = f"The swarm {swarm_id}"
        breach = quotas.holding(swarm_id, who, owner_id, cluster_id, size, is_over=is_over)
        if breach is not None:
            context.cluster(cluster_id).unloaded[swarm_id] = breach.sentence
            raise NotLoaded(breach.sentence)

    quotas.ledger.begin(swarm_id)
    try:
        return _read(context.reader, swarm_id, cluster_id, hold, log)
    except BaseException:
        quotas.ledger.let_go(swarm_id)
        raise


def _read(
    reader: Store, swarm_id: str, cluster_id: str, hold: Callable[[int], None], log: Log
) -> tuple[SwarmMachine, int]:
    """`hold` is told of how many bytes it takes, before it takes many more."""
    hold(reader.snapshot_size(swarm_id))
    snapshot = None
    if (stored := reader.snapshot(swarm_id)) is not None:
        try:
            snapshot = snapshots.load(stored.body, stored.pages, partial(reader.page, swarm_id))
        except Damaged as damaged:
            log.warning("%s", damaged)
        del stored
    after = snapshot[1] if snapshot else 0
    machine = SwarmMachine.replay(swarm_id, cluster_id, (), snapshot)
    events = _weighed(reader.events(swarm_id, after), machine, hold)
    machine.go_on(decode_log(events, after))
    hold(weight.weigh(machine.data))
    return machine, after


def _weighed(
    events: Iterable[StoredEvent], machine: SwarmMachine, hold: Callable[[int], None]
) -> Iterator[StoredEvent]:
    """The same events; the machine handles each before it takes the next."""
    read = 0
    for event in events:
        read += len(event.body)
        if read >= weight.STEP:
            hold(weight.weigh(machine.data))
            read = 0
        yield event
