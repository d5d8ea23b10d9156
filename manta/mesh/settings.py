"""How a mesh is joined: arguments before `MANTA_MESH_*`, as `manta mesh run` sets these."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from manta.light import arguments
from manta.mesh.errors import JoinFailed

LISTEN, PEERS, SECRET, KEY, KNOWN, NAME, TOPOLOGY, SIZE, FD, RUN = ALL = tuple(
    f"MANTA_MESH_{name}"
    for name in (
        "LISTEN", "PEERS", "SECRET", "KEY", "KNOWN", "NAME", "TOPOLOGY", "SIZE", "FD", "RUN"
    )
)  # fmt: skip
"""KEY and KNOWN are files, in place of SECRET, as `Keys.load` reads them. FD is the descriptor of a
socket to a peer's process, for one mesh; RUN the folder of the `manta mesh run` that has started
this one."""
FAULTS = "MANTA_MESH_FAULTS"
LOOPBACK = "127.0.0.1"
PORTS = 3
"""That a peer takes, in a row: for its door, links, and large values."""
MOST_KNOWN = 1 << 20
"""Bytes of a file of public keys."""
KEY_CHARACTERS = 40
"""As in `transports.security.keys`, which a task need not have; a test compares them."""


class Keys(NamedTuple):
    """In place of a secret: who is admitted, by public keys. `secret` is the secret half of this
    peer's own pair; both are 40 characters, as `transports.security.keys.KeyPair` has them."""

    secret: str
    known: Iterable[str] = ()

    @classmethod
    def load(cls, key: str | os.PathLike[str], known: str | os.PathLike[str]) -> Keys:
        """Of two files: `key` has a key pair, as `manta mesh key` makes it; `known` has the public
        keys of all that are admitted, one a line, with a name behind it or not. Raises
        JoinFailed."""
        from manta.transports.errors import KeyFileError, LocalTransportError, remedied
        from manta.transports.files import FileTooLarge, read_bounded
        from manta.transports.security.keys import KeyPair, check_key

        if not os.path.exists(key):
            raise JoinFailed(f"There is no key file {key}: `manta mesh key {key}` makes one.")
        try:
            secret = KeyPair.load(key).secret
        except KeyFileError as error:
            raise JoinFailed(f"This peer has no key: {error}.") from None
        try:
            lines = read_bounded(known, MOST_KNOWN).decode("utf-8").splitlines()
        except (OSError, FileTooLarge) as error:
            why = remedied(error) if isinstance(error, OSError) else str(error)
            raise JoinFailed(f"Who is admitted is not known: {known}: {why}.") from None
        except UnicodeDecodeError:
            raise JoinFailed(f"Who is admitted is not known: {known} is no text.") from None
        found = []
        for number, line in enumerate(lines, 1):
            if not (words := line.split()):
                continue
            try:
                found.append(check_key(words[0]))
            except LocalTransportError as error:
                raise JoinFailed(f"{known}, line {number}: {error}.") from None
        if not found:
            raise JoinFailed(
                f"{known} has no key: write the public keys of all that are admitted there, one a "
                "line."
            )
        return cls(secret, tuple(found))


class Settings(NamedTuple):
    listen: str
    peers: tuple[str, ...]
    secret: str | Keys
    name: str
    topology: Any
    size: int
    """How many peers `join` waits for."""
    faults: Any = None
    """Of an experiment."""

    def join(self, timeout: float) -> dict[str, Any]:
        """As `peer.join.Join` has it."""
        keys = self.secret if isinstance(self.secret, Keys) else None
        return {
            "name": self.name,
            "listen": self.listen,
            "peers": self.peers,
            "secret": None if keys else self.secret,
            "keys": tuple(keys.known) if keys else (),
            "own": keys.secret if keys else None,
            "topology": self.topology,
            "timeout": timeout,
        }


def settings(
    listen: str | None,
    peers: str | Iterable[str],
    secret: str | Keys | None,
    name: str | None,
    topology: Any,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Raises JoinFailed, TypeError, ValueError, each with what was wrong and what will do."""
    told = _doors(peers) or tuple(filter(None, environment.get(PEERS, "").split(",")))
    secret = secret or trust(environment)
    if secret is None:
        raise JoinFailed(
            f"A mesh needs a secret, which all its peers know: give secret=..., or set {SECRET} "
            f"(`manta mesh run` makes one), or {KEY} and {KNOWN} for a list of keys."
        )
    if not isinstance(secret, str | Keys):
        raise TypeError(f"secret is a str, or Keys, not a {type(secret).__name__}.")
    secret = _checked(secret)
    if not isinstance(listen, str | None):
        raise TypeError(f"listen is a str, HOST or HOST:PORT, not {listen!r:.60}.")
    size = environment.get(SIZE, "1")
    if not size.isascii() or not size.isdigit() or not int(size):
        raise ValueError(f"{SIZE} is {size!r:.60}: give how many peers are waited for, from 1 on.")
    given = topology if topology != "full" else environment.get(TOPOLOGY, "full")
    return Settings(
        listen or environment.get(LISTEN) or LOOPBACK,
        told,
        secret,
        arguments.name("peer's name", name or environment.get(NAME) or _own_name()),
        _topology(given),
        int(size),
        _faults(environment.get(FAULTS)),
    )


def trust(environment: Mapping[str, str] = os.environ) -> str | Keys | None:
    """By what peers are admitted, as the environment says. Raises JoinFailed."""
    secret, key, known = (environment.get(name) or "" for name in (SECRET, KEY, KNOWN))
    if secret and (key or known):
        raise JoinFailed(
            f"{SECRET} and {KEY if key else KNOWN} are both set, and a mesh admits by one of them: "
            "unset the other."
        )
    if bool(key) != bool(known):
        here, lacking = (KEY, KNOWN) if key else (KNOWN, KEY)
        raise JoinFailed(
            f"{here} is set, and {lacking} is not: set it to the file with "
            + ("the public keys that are admitted." if key else "this peer's own key pair.")
        )
    return Keys.load(key, known) if key else secret or None


def _doors(peers: str | Iterable[str]) -> tuple[str, ...]:
    """Raises TypeError."""
    given: Any = [peers] if isinstance(peers, str) else peers
    doors = tuple(given) if isinstance(given, Iterable) else (given,)
    for one in doors:
        if not isinstance(one, str):
            raise TypeError(f"peers are a str HOST:PORT each, and one is {one!r:.60}.")
    return doors


def _checked(secret: str | Keys) -> str | Keys:
    """Raises ValueError, which does not quote it."""
    if isinstance(secret, str):
        if any("\ud800" <= one <= "\udfff" for one in secret):
            raise ValueError("secret has halves of characters (surrogates): give another one.")
        return secret
    given: Any = secret  # which nothing has checked yet
    own, known = given.secret, tuple(given.known)
    if not all(isinstance(one, str) and len(one) == KEY_CHARACTERS for one in (own, *known)):
        raise ValueError(
            f"A key is a str of {KEY_CHARACTERS} characters, as `KeyPair` has it, and one of those "
            "in Keys is none."
        )
    return Keys(own, known)


def _topology(given: Any) -> Any:
    """In a form that can be told. Raises InvalidTopology."""
    if given == "full":
        return given
    from manta.roster.topologies import Topology  # which most do not wait for

    return Topology.of(given).form


def _faults(given: str | None) -> Any:
    """As `manta.mesh.faults` has them. Raises ValueError."""
    if not given:
        return None
    from manta.mesh.faults import Faults

    try:
        form = json.loads(given)
    except ValueError as error:
        raise ValueError(f"{FAULTS} is no JSON: {error}.") from None
    return Faults.of(form).form()


def _own_name() -> str:
    return f"{socket.gethostname().partition('.')[0] or 'peer'}-{os.getpid()}"
