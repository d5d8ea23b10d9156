"""Fills an empty store at the first start.

`manta run` knows all keys before anything runs and passes them in a file, so that nobody
needs a token. Without a file, one administrator with a random password is created; the
password is shown only once.
"""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from manta.manager.auth.passwords import hash_password, random_password
from manta.manager.auth.roles import OWNER
from manta.manager.errors import StartError
from manta.manager.ids import new_id
from manta.manager.store.interface import Put, Store, Write
from manta.manager.store.records import (
    ClusterRecord,
    GrantRecord,
    KeyKind,
    KeyRecord,
    NodeRecord,
    UserRecord,
)
from manta.transports.codec.decoders import json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored
from manta.transports.errors import KeyFileError, LocalTransportError
from manta.transports.security.keys import check_key, read_private

ADMIN = "admin@localhost"
MOST = 16 * 1024 * 1024
"""Bytes of a file: about a hundred for each node."""


class Admin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    email: str
    key: str


class Cluster(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    alias: str
    key: str
    id: str = ""


class Bootstrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    admin: Admin
    cluster: Cluster | None = None
    nodes: tuple[Node, ...] = ()


def read(path: Path) -> Bootstrap:
    """Raises StartError."""
    try:
        thing = Thing(f"The bootstrap file {path}", "nobody was added", "correct it", "not valid")
        content = read_stored(thing, json_decoder(Bootstrap).decode, read_private(path, MOST))
        for key in (content.admin.key, *(node.key for node in content.nodes)):
            check_key(key)
    except KeyFileError as error:
        raise StartError(str(error)) from error
    except Damaged as error:
        raise StartError(str(error)) from error
    except LocalTransportError as error:
        raise StartError(f"{path}: {error}; correct the bootstrap file.") from error
    if content.nodes and content.cluster is None:
        raise StartError(f"{path}: it has nodes but no cluster; name the one they belong to.")
    aliases = [node.alias for node in content.nodes]
    if len(set(aliases)) < len(aliases):
        raise StartError(f"{path}: two nodes have one alias; give each its own.")
    return content


def is_empty(store: Store) -> bool:
    return not store.count(UserRecord)


def apply(store: Store, content: Bootstrap) -> None:
    now = time.time()
    admin = UserRecord(new_id(), content.admin.email.strip().lower(), "", now)
    writes: list[Write] = [
        Put(admin),
        Put(KeyRecord(content.admin.key, KeyKind.USER, admin.id, now)),
    ]
    if content.cluster is not None:
        cluster = ClusterRecord(new_id(), content.cluster.name, admin.id, now)
        writes += (Put(cluster), Put(GrantRecord(admin.id, cluster.id, OWNER)))
        for node in content.nodes:
            node_id = node.id or new_id()
            record = NodeRecord(node_id, cluster.id, node.alias, node.key, now, here=True)
            writes += (Put(record), Put(KeyRecord(node.key, KeyKind.NODE, record.id, now)))
    store.commit(writes)


def first_admin(store: Store) -> str:
    """Creates the administrator; returns the password, which is kept nowhere."""
    password = random_password()
    store.commit([Put(UserRecord(new_id(), ADMIN, hash_password(password), time.time()))])
    return password
