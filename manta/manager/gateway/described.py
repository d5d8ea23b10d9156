"""What a record says of a message: what it was about, and nothing that is secret. Pure.

It is derived from the message's own fields, so that a message that is added is described as well.
Fields that are marked SECRET, values of tasks and code are left out; of these there is the size or
digest.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, get_type_hints

import msgspec

from manta.manager.directory import SwarmEntry
from manta.manager.store.records import ClusterRecord, NodeRecord
from manta.protocol.base import Message
from manta.protocol.signed import fingerprint
from manta.protocol.spec import ModuleSpec, SwarmSpec
from manta.protocol.values import BlobRef, Inline

LONGEST = 300
"""Characters of a text."""
MOST = 100
"""Items of a list."""
_MADE = ("swarm_id", "node_id", "user_id", "cluster_id", "id", "alias", "email", "count")
"""Fields of an answer that say what came of it."""
_TARGETS = ("cluster", "node", "swarm")


@cache
def name_of(message: type[Message]) -> str:
    """StopSwarm is stop-swarm."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", message.__name__).lower()


@cache
def _told(message: type[Message]) -> tuple[str, ...]:
    """The fields that may be told."""
    hints = get_type_hints(message, include_extras=True)
    return tuple(name for name in message.__struct_fields__ if not is_secret(hints[name]))


def is_secret(hint: Any) -> bool:
    """Whether a type, or any that it is made of, is marked SECRET."""
    marks = getattr(hint, "__metadata__", ())
    if any(isinstance(one, msgspec.Meta) and (one.extra or {}).get("secret") for one in marks):
        return True
    parts = (*getattr(hint, "__args__", ()), getattr(hint, "__origin__", None))
    return any(is_secret(part) for part in parts if hasattr(part, "__metadata__"))


def described(message: Message, target: object) -> dict[str, Any]:
    about = of_target(target)
    for name in _told(type(message)):
        value = getattr(message, name)
        if value is None or (about and name in _TARGETS):
            continue
        about |= _value(name, value)
    return about


def of_target(target: object) -> dict[str, Any]:
    match target:
        case ClusterRecord(id=id_, name=name):
            return {"cluster_id": id_, "cluster": name}
        case NodeRecord(id=id_, alias=alias, cluster_id=cluster_id):
            return {"node_id": id_, "node": alias, "cluster_id": cluster_id}
        case SwarmEntry(id=id_, name=name, cluster_id=cluster_id):
            return {"swarm_id": id_, "swarm": name, "cluster_id": cluster_id}
    return {}


def of_answer(answer: object) -> dict[str, Any]:
    """What came of a message, as far as its answer names it."""
    values = {name: getattr(answer, name, None) for name in _MADE}
    return {name: value for name, value in values.items() if isinstance(value, str | int)}


def _value(name: str, value: object) -> dict[str, Any]:
    match value:
        case str():
            return {name: value[:LONGEST]}
        case bool() | int() | float():
            return {name: value}
        case BlobRef(digest, size):
            return {"digest": digest, "bytes": size}
        case Inline(data):
            return {"bytes": len(data)}
        case SwarmSpec():
            modules = [_module(module) for module in value.modules[:MOST]]
            key = fingerprint(value.signed.key) if value.signed else "none"
            return {"swarm": value.name, "key": key, "modules": modules}
        case ModuleSpec():
            return _module(value)
        case tuple() if all(isinstance(one, str) for one in value):
            return {name: [one[:LONGEST] for one in value[:MOST]]}
    return {}


def _module(spec: ModuleSpec) -> dict[str, Any]:
    digest = spec.package and spec.package.digest
    found = {"module": spec.name, "version": spec.version, "digest": digest, "image": spec.image}
    return {name: value for name, value in found.items() if value is not None}
