"""Several nodes on this machine, each a daemon with a state folder, key and id of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manta.console.interrupts import Interrupted, Interrupts
from manta.node.config import instance, load
from manta.node.daemon import background, places
from manta.node.daemon.exit_codes import of_error, sentence_of
from manta.node.errors import NodeError, OperatorError, TokenError
from manta.node.state import Member, StateFolder
from manta.protocol.tokens import UnreadableToken, peek
from manta.transports.errors import TransportError

if TYPE_CHECKING:
    from manta.node.config import NodeConfig

A_NODE_MORE = 1.0
"""Seconds that each node adds to the time to connect."""


@dataclass(frozen=True)
class Planned:
    """A node that will be started."""

    config: NodeConfig
    member: Member

    @property
    def name(self) -> str:
        return f"{self.member.cluster}-{self.member.number}"

    @property
    def folder(self) -> StateFolder:
        return places.state_folder(self.name)


def of_one_configuration(name: str, count: int) -> list[Planned]:
    """Plans nodes 1 to `count` of one configuration. Raises ConfigError, OperatorError."""
    config = load(places.config_path(name))
    planned = [
        Planned(instance(config, number), Member(name, number, name, is_shared=True))
        for number in range(1, count + 1)
    ]
    for node in planned:
        if (path := places.config_path(node.name)).exists():
            raise OperatorError(
                f"The node {node.name} has a configuration of its own ({path}): give the cluster "
                "another --config, or that one another name."
            )
    return planned


def of_own_configurations(cluster: str, count: int) -> list[Planned]:
    """Plans nodes that each have a configuration. Raises ConfigError."""
    names = [f"{cluster}-{number}" for number in range(1, count + 1)]
    return [
        Planned(load(places.config_path(name)), Member(cluster, number, name))
        for number, name in enumerate(names, 1)
    ]


def check_token(planned: Iterable[Planned], now: float) -> None:
    """Check by its claims that the token lets in all nodes that have not enrolled yet.

    Raises TokenError.
    """
    needed: dict[str, int] = {}
    for node in planned:
        if node.config.token and not _has_enrolled(node):
            needed[node.config.token] = needed.get(node.config.token, 0) + 1
    for token, count in needed.items():
        try:
            claims = peek(token)
        except UnreadableToken:
            continue  # each node says it, with its configuration
        if claims.uses is not None and claims.uses < count:
            raise TokenError(
                f"The token lets {claims.uses} node{'s' * (claims.uses != 1)} in, and {count} have "
                f"not enrolled yet: get one with `manta node token CLUSTER --uses {count}`."
            )
        if claims.expires_at + 30 < now:
            raise TokenError(
                "The token has expired: get another with "
                f"`manta node token CLUSTER --uses {count}`."
            )


def _has_enrolled(node: Planned) -> bool:
    """Whether the node has enrolled with the manager of its token."""
    try:
        identity = node.folder.read_identity()
        return identity is not None and identity.manager_key == peek(node.config.token).manager_key
    except (NodeError, UnreadableToken):
        return False


def start(planned: list[Planned]) -> Iterator[tuple[str, str | None, int | None]]:
    """Start those that do not run, all at once, and yield (name, error, exit code) for each.

    A node that fails to start does not keep the others from starting.
    """
    launched: dict[str, background.Started | Exception | None] = {}
    patience = background.START_PATIENCE + A_NODE_MORE * len(planned)
    with Interrupts() as interrupts:
        try:
            interrupts.begin()
            for node in planned:
                try:
                    background.await_end(node.name, node.folder)
                except OperatorError as error:
                    launched[node.name] = error
                    continue
                with interrupts.held():
                    launched[node.name] = _launched(node)
            for name, started in launched.items():
                try:
                    if isinstance(started, Exception):
                        raise started
                    if started is not None:
                        started.wait(patience)
                except (NodeError, TransportError, OSError) as error:
                    yield name, sentence_of(error), of_error(error)
                else:
                    yield name, None, None
        except Interrupted:
            interrupts.finish()
            for started in launched.values():
                if isinstance(started, background.Started):
                    started.abandon()
            raise


def _launched(node: Planned) -> background.Started | Exception | None:
    """Returns the daemon, or why it could not be launched; None if it runs already."""
    folder = node.folder
    try:
        if folder.running_pid() is not None:
            return None
        folder.write_member(node.member)
        return background.launch(node.config, folder)
    except (NodeError, TransportError, OSError) as error:
        return error


def stop(names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Stop all at once, and yield a record for each: name, pid, stopped, error."""
    told: dict[str, int | None] = {}
    errors: dict[str, str] = {}
    for name in names:
        told[name] = None
        try:
            told[name] = background.ask_to_stop(places.state_folder(name))
        except (NodeError, OSError) as error:
            errors[name] = str(error)
    for name, pid in told.items():
        try:
            if pid is not None:
                background.wait_for_end(name, places.state_folder(name), pid)
        except NodeError as error:
            errors[name] = str(error)
        stopped = pid is not None and name not in errors
        yield {"name": name, "pid": pid, "stopped": stopped, "error": errors.get(name)}


def running(names: Mapping[str, Member]) -> list[str]:
    return [name for name in names if places.state_folder(name).running_pid() is not None]
