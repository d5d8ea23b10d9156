"""Answers with a plan; one that is too long for a message becomes a blob, swept later."""

from __future__ import annotations

import msgspec

from manta.actors import Actor, Refused, Reply
from manta.manager.auth.principals import Principal
from manta.manager.context import Context
from manta.protocol.codes import Code
from manta.protocol.pages import PAGE_BYTES
from manta.protocol.user import Plan, Planned
from manta.protocol.values import BlobRef
from manta.transports.codec.values import encode
from manta.transports.errors import BlobRefused


def answer(actor: Actor, context: Context, plan: Plan, who: Principal, reply: Reply) -> None:
    actor.pipe(context.jobs.submit(who.id, _planned, context, plan, who), reply.set, reply=reply)


def _planned(context: Context, plan: Plan, who: Principal) -> Planned:
    """Runs on a worker. Raises Refused."""
    packed = msgspec.msgpack.encode(plan)
    if len(packed) <= PAGE_BYTES:
        return Planned(plan)
    value = encode(packed)
    try:
        digest = context.depot.put(*value.parts())
    except BlobRefused as error:
        raise Refused(
            Code.STORAGE, f"The plan is too long for a message and cannot be kept: {error}"
        ) from error
    context.holds(digest)
    context.access.lend(who, digest)
    return Planned(blob=BlobRef(digest, value.nbytes))
