"""Checks a node's configuration and state folder, and the rest by way of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from manta.console.text import count, seconds, size
from manta.node.capabilities import datasets
from manta.node.config import Described
from manta.node.doctor import machine, manager
from manta.node.doctor.report import Finding, fault, ok, warning
from manta.node.errors import ConfigError, EngineError, NodeError
from manta.node.peers.listening import OFF, CannotListen, PeerSocket, bulk_address
from manta.node.runners import engine
from manta.node.runners.docker import LABEL
from manta.node.runners.selection import label_of
from manta.node.task_server.sessions import LONGEST_PATH, SOCKET
from manta.protocol.addresses import is_loopback
from manta.protocol.tokens import NODE_AUDIENCE, TokenClaims, UnreadableToken, peek
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import KeyPair, check_private_folder, read_private

if TYPE_CHECKING:
    from manta.node.config import NodeConfig
    from manta.node.state import Identity, StateFolder, Status


def examine(name: str, folder: StateFolder, *, offline: bool) -> Iterator[Finding]:
    """Yield all findings about the node NAME and its machine."""
    from manta.node.daemon.background import current_status
    from manta.node.daemon.places import config_of

    config = None
    try:
        config = config_of(name)
        yield ok("configuration", f"{config.path} is valid.")
        for note in config.notes:
            said, _, remedy = note.rpartition(": ")
            yield warning("configuration", f"{config.path}: {said}.", f"{remedy}.")
    except ConfigError as error:
        for flaw in error.flaws:
            line = f", line {flaw.line}" if flaw.line else ""
            yield fault("configuration", f"{error.path}{line}: {flaw.wrong}.", f"{flaw.remedy}.")
    yield from machine.examine(config, folder.path)
    yield _socket_path(folder)
    secrets = list(_secrets(folder))
    yield from secrets
    status = current_status(folder)
    yield _running(name, status, folder)
    if status is None and folder.running_pid() is None:
        yield from _left_behind(name, folder)
    if config is None:
        return
    yield _peers(config, running=bool(status))
    yield from _datasets(config)
    yield from _policy(config)
    yield from _membership(config, folder, bool(status), offline=offline)


def _policy(config: NodeConfig) -> Iterator[Finding]:
    """A node without a policy has none to look at."""
    from manta.node.policy import reading

    if config.policy is None:
        return
    try:
        found = reading.load(config.policy)
    except ConfigError as error:
        for flaw in error.flaws:
            line = f", line {flaw.line}" if flaw.line else ""
            yield fault("policy", f"{error.path}{line}: {flaw.wrong}.", f"{flaw.remedy}.")
        return
    yield ok("policy", f"{config.policy} is valid: {count(len(found.rules), 'rule')}.")


def _socket_path(folder: StateFolder) -> Finding:
    length = len(os.fsencode(folder.path.absolute() / "light" / SOCKET))
    if length > LONGEST_PATH:
        return fault(
            "paths",
            f"The path of the node's socket has {length} bytes, and {LONGEST_PATH} are possible.",
            "Set MANTA_HOME to a shorter path, or give the configuration a shorter name.",
        )
    return ok("paths", f"The path of the node's socket has {length} of {LONGEST_PATH} bytes.")


def _secrets(folder: StateFolder) -> Iterator[Finding]:
    """Secrets that other users can read are faults."""
    found = [path for path in (folder.key_file, folder.identity_file) if path.exists()]
    if not found:
        return
    try:
        check_private_folder(folder.path)
        for path in found:
            read_private(path)
        if folder.key_file.exists():
            KeyPair.load(folder.key_file)
        folder.read_identity()
    except (KeyFileError, NodeError) as error:
        sentence, _, remedy = str(error).rpartition(": " if ": run" in str(error) else "; ")
        yield fault("secrets", f"{sentence or error}.", f"{remedy}.")
        return
    yield ok("secrets", f"The key in {folder.path} is this user's alone.")


def _running(name: str, status: Status | None, folder: StateFolder) -> Finding:
    if status is None:
        if (pid := folder.running_pid()) is not None:
            return ok("daemon", f"The node is starting (process {pid}).")
        return ok("daemon", f"The node does not run; `manta_node start {name}` starts it.")
    if status.state == "connected":
        return ok("daemon", f"{status.sentence} Process {status.pid}.")
    if status.state == "stopping":
        return ok("daemon", f"The node is stopping (process {status.pid}).")
    since = seconds(max(0.0, time.time() - status.since))
    return fault(
        "daemon",
        f"{status.state} for {since} (process {status.pid}): {status.sentence}",
        f"See `manta_node logs {name}`.",
    )


def _left_behind(name: str, folder: StateFolder) -> Iterator[Finding]:
    """Look for containers of a killed daemon: they end by themselves, but stay."""
    if engine.problem() is not None or not folder.key_file.exists():
        return
    try:
        label = f"{LABEL}={label_of(KeyPair.load(folder.key_file).public, folder.path)}"
        with closing(engine.Engine()) as client:
            left = client.containers(label)
    except (KeyFileError, EngineError) as error:
        yield warning("containers", f"What is left cannot be seen: {error}", "Correct that first.")
        return
    if left:
        ids = " ".join(container["Id"][:12] for container in left)
        yield warning(
            "containers",
            f"A daemon that was killed has left {len(left)} of its containers: {ids}.",
            f"`manta_node start {name}` removes them; if it is not to run again, "
            f"`docker rm --force --volumes {ids}`.",
        )


def _peers(config: NodeConfig, *, running: bool) -> Finding:
    """Looks whether other nodes could be told where to connect."""
    if config.peers_listen == OFF:
        return ok("peers", 'No node connects to this one: peers.listen is "off".')
    if running:
        return ok("peers", f"The node that runs listens at {config.peers_listen} for others.")
    try:
        near = is_loopback(config.manager_host)
        listening = PeerSocket(config.peers_listen, config.peers_advertise, near=near)
        with closing(listening) as found:
            addresses = [address.removeprefix("tcp://") for address in found.addresses]
            bulk = _try_bulk(config)
    except CannotListen as error:
        sentence, _, remedy = str(error).partition("; ")
        return fault("peers", f"{sentence}.", remedy)
    if not addresses:
        return warning(
            "peers",
            "This machine has no address at which other nodes could connect to it.",
            'Set peers.advertise to one, or peers.listen to "off".',
        )
    many = f"{config.peers_listen}, and tells them {', '.join(addresses)}"
    return ok("peers", f"The node can listen for others at {many}{bulk}.")


def _try_bulk(config: NodeConfig) -> str:
    """What is to be said of where large values go. Raises CannotListen."""
    if config.peers_bulk_cipher == "curve":
        return ""
    at = bulk_address(config.peers_listen, config.peers_bulk_port)
    with closing(PeerSocket(at, setting="peers.bulk_port")):
        return "" if at.endswith(":0") else f"; large values come to {at}"


def _datasets(config: NodeConfig) -> Iterator[Finding]:
    for flaw in datasets.flaws(config):
        line = f"{config.path}, line {flaw.line}"
        yield fault("datasets", f"{line}: {flaw.wrong}.", f"{flaw.remedy}.")
    found = datasets.survey(config.datasets, config.described)
    for one in found:
        path = config.datasets[one.name]
        yield ok("datasets", f"{one.name}: {one.format}, {size(one.size)}, {path}")
        try:
            other = datasets.other_digest(path, config.described.get(one.name, Described()))
        except OSError as error:
            yield fault("datasets", f"{one.name} cannot be read: {error.strerror}.", "Look why.")
            continue
        if other:
            wrong = (
                f"The dataset {one.name!r} is not the file that its digest says: it has {other}."
            )
            yield fault("datasets", wrong, "Write that, and another version, if it has changed.")
    if not config.datasets:
        yield ok("datasets", "None is mapped.")


def _membership(
    config: NodeConfig, folder: StateFolder, running: bool, *, offline: bool
) -> Iterator[Finding]:
    try:
        identity = folder.read_identity()
        keys = KeyPair.load(folder.key_file) if folder.key_file.exists() else None
    except (NodeError, KeyFileError):
        return  # said above
    claims = None
    if config.token:
        try:
            claims = peek(config.token)
        except UnreadableToken as error:
            sentence, _, remedy = str(error).partition("; ")
            what = warning if identity else fault
            yield what("token", f"{sentence}.", remedy)
    moves = (
        claims is not None and identity is not None and claims.manager_key != identity.manager_key
    )
    enrolled = identity is not None and not moves
    yield from _token(config, identity, claims, moves=moves)
    if claims is not None and not enrolled:
        manager_key = claims.manager_key
    elif identity is not None:
        manager_key = identity.manager_key
    else:
        return  # nobody to ask for: said above
    if offline:
        return
    own = None if running else keys
    token = config.token if claims is not None and not enrolled else ""
    yield from manager.examine(config, manager_key, own, enrolled=enrolled, token=token)


def _token(
    config: NodeConfig, identity: Identity | None, claims: TokenClaims | None, *, moves: bool
) -> Iterator[Finding]:
    get = "Get a token with `manta node token CLUSTER`."
    if claims is None and config.token:
        return  # unreadable: said above
    if identity is not None and not moves:
        yield ok("token", "The node has enrolled: its own key is enough.")
    elif claims is None:
        unset = config.token_variable
        why = f"{unset} is not set" if unset else "identity.secured_token is empty"
        yield fault("token", f"The node has not enrolled and has no token: {why}.", get)
    elif claims.audience != NODE_AUDIENCE:
        yield fault("token", f"The token is not a node's but one for {claims.audience!r}.", get)
    elif moves:
        yield warning(
            "token",
            "The token is of another manager than the one this node belongs to: at its next start "
            "the node moves there.",
            "Take the token out if that is not meant.",
        )
    elif claims.expires_at < time.time():
        ago = seconds(time.time() - claims.expires_at)
        yield fault("token", f"The token expired {ago} ago.", get)
    else:
        left = seconds(claims.expires_at - time.time())
        uses = "" if claims.uses is None else f", made for {claims.uses} node(s)"
        yield ok("token", f"The token expires in {left}{uses}.")
