"""Makes swarms, and looks why one cannot be started."""

from __future__ import annotations

from collections import deque

from manta.actors.errors import Refused
from manta.manager.context import Context
from manta.manager.errors import StorageUnavailable, StoreError
from manta.manager.ids import new_id
from manta.manager.quotas.table import Quota
from manta.manager.store.change import Change
from manta.manager.store.interface import AppendEvents, Put, Reference, Store
from manta.manager.store.records import SwarmRecord
from manta.manager.swarm import bounds, references, weight
from manta.manager.swarm.events import Created, decode_log, encode
from manta.manager.swarm.machine import SwarmMachine
from manta.manager.swarm.reads import queries
from manta.manager.views import ClusterView
from manta.protocol.user import SendSwarm, SwarmInfo


def create(
    context: Context, change: Change, message: SendSwarm, owner_id: str, cluster_id: str, now: float
) -> SwarmInfo:
    """Puts a new swarm into the change. Raises Refused if it is more than the quotas allow."""
    swarm_id = new_id()
    created = Created(message.spec, message.wait, direct=True)
    machine = SwarmMachine(swarm_id, cluster_id)
    machine.handle(created, now)
    info = queries.info(machine)
    digests = tuple({blob.digest: None for blob in references.of_spec(message.spec)})
    body = encode(created, now)
    bounds.check_spec(context.quotas, message.spec, len(body), digests, owner_id, cluster_id)
    quotas, who = context.quotas, f"The swarm {message.spec.name!r}"
    undo = quotas.admit(swarm_id, owner_id, cluster_id, Quota.SWARMS, Quota.LIVE_SWARMS)
    held = weight.weigh(machine.data)
    if breach := quotas.holding(swarm_id, who, owner_id, cluster_id, held, is_over=False):
        undo()
        raise breach.refusal()
    change.on_refusal(undo)
    change.on_refusal(lambda: quotas.ledger.let_go(swarm_id))
    quotas.ledger.tell(swarm_id, owner_id, len(body))
    quotas.ledger.name(swarm_id, owner_id, digests)
    change.on_refusal(lambda: quotas.ledger.forget(swarm_id))
    change.write(
        AppendEvents(swarm_id, 1, (body,)),
        Reference(swarm_id, digests, cluster_id),
        Put(SwarmRecord(info, owner_id)),
    )
    return info


def why_not(reader: Store, view: ClusterView, swarm_id: str, refusal: Refused) -> tuple[str, bool]:
    """Why a swarm cannot be started, and whether that lasts: its event log is damaged."""
    if (why := view.unloaded.pop(swarm_id, None)) is not None:
        return f"it is not loaded: {why}", False
    try:
        deque(decode_log(reader.events(swarm_id)), maxlen=0)
    except StoreError as flaw:
        reason = f"its event log cannot be read: {flaw}; restore a backup, or remove the swarm."
        return reason, not isinstance(flaw, StorageUnavailable)
    return f"it cannot be started: {refusal.sentence}", False
