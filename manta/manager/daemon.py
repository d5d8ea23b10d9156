"""The manager as a process: `python -m manta.manager`."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from manta.actors.process import prepare_process
from manta.console.extras import missing
from manta.console.home import NoHome, home_folder
from manta.console.log_lines import LineFormatter
from manta.console.rotating_file import RotatingFile
from manta.console.stopping import Stopping
from manta.console.visible import visible
from manta.manager.bootstrap import ADMIN
from manta.manager.errors import ManagerError, StartError
from manta.manager.home import LEAST_LEASE, MOST_LEASE, Home
from manta.manager.service import Manager, Settings
from manta.transports.addresses import split_address
from manta.transports.descriptors import raise_descriptor_limit
from manta.transports.errors import TransportError
from manta.transports.security.owner_key import KeySource

CANNOT_START, GAVE_UP = 11, 70
"""Exit codes of docs/exit-codes.md, since `manta manager start` becomes this process."""

ROTATION = 10_000_000
"""Bytes of a log file, of which some are kept."""
NOTING = 2.0
"""Seconds between two looks at what is written for `manta manager status`."""

log = logging.getLogger("manta.manager")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if lacking := missing("manager"):
        sys.stderr.write(
            f"The manager cannot start: it needs {', '.join(lacking)}, which is not installed: "
            "pip install 'manta-swarm[manager]'.\n"
        )
        return CANNOT_START
    prepare_process()
    raise_descriptor_limit()
    handler = _log_handler(options.log)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=options.log_level, handlers=[handler])
    stopping = Stopping(follows=0 if options.while_stdin else None)
    try:
        manager = Manager(
            _settings(options), on_end=lambda reason: stopping.stop(GAVE_UP, str(reason))
        )
    except (ManagerError, TransportError) as error:
        _say(f"The manager cannot start: {visible(str(error))}\n")
        return CANNOT_START
    with manager:
        _announce(manager)
        while not stopping.is_told_within(NOTING):
            with contextlib.suppress(OSError):  # a full disk, of which the store tells
                manager.note_strangers()
        code, why = stopping.wait()
        log.info("stopping: %s", why)
    return code


def _log_handler(file: Path | None) -> logging.Handler:
    return logging.StreamHandler(sys.stderr) if file is None else RotatingFile(file, ROTATION)


def _say(sentence: str) -> None:
    """On stderr, which may be a file on the disk that is full."""
    try:
        sys.stderr.write(sentence)
        sys.stderr.flush()
    except OSError:
        sys.stdout.write(sentence)
        os.dup2(sys.stdout.fileno(), sys.stderr.fileno())  # for what is still to be flushed


def _settings(options: argparse.Namespace) -> Settings:
    """What is not given is as it was at the last start. Raises StartError."""
    try:
        last = Home(options.home).read_settings()
    except (OSError, ValueError) as error:
        raise StartError(str(error)) from None
    return Settings(
        options.home,
        options.nodes or last.nodes,
        options.users or last.users,
        options.bulk or last.bulk,
        options.fds,
        options.bootstrap,
        options.lease or last.lease,
        last.strangers,
        _key_source(last.encryption_key_from, options.encryption_key_from),
    )


def _key_source(last: str, given: str | None) -> KeySource | None:
    """Raises StartError."""
    text = last if given is None else given
    try:
        return KeySource.parse(text) if text else None
    except ValueError as error:
        raise StartError(f"Where the key for encryption is cannot be read: {error}.") from None


def _announce(manager: Manager) -> None:
    file = manager.file
    log.info(
        "listening: nodes %s, users %s, bulk %s; public key %s",
        file.nodes, file.users, file.bulk, file.public_key,
    )  # fmt: skip
    if manager.first_password:
        host, port = split_address(file.users)
        host = "localhost" if host in ("*", "0.0.0.0", "::") else host
        # On stdout and not in the log, so that it is kept nowhere.
        sys.stdout.write(
            "\nThis manager has one user, an administrator. Sign in with\n\n"
            f"    manta sign-in --email {ADMIN} --host {host} --port {port} "
            f"--server-key='{file.public_key}'\n\n"
            f"and the password  {manager.first_password}  which is shown only now.\n\n"
        )
        sys.stdout.flush()
    # Nothing more is written there: a reader that waits for the end of stdout may go on.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m manta.manager", description="Run a Manta manager in the foreground."
    )
    parser.add_argument("--home", type=Path, help="its folder, by default ~/.manta/manager")
    parser.add_argument("--nodes", help="where nodes connect; as are the others, as the last time")
    parser.add_argument("--users", help="where users connect")
    parser.add_argument("--bulk", help="where data moves")
    parser.add_argument(
        "--lease",
        type=_lease,
        metavar="SECONDS",
        help="how long a node may be silent before it counts as lost",
    )
    parser.add_argument(
        "--encryption-key-from",
        metavar="SOURCE",
        help="where the key is with which blobs are encrypted",
    )
    parser.add_argument(
        "--fds",
        type=_descriptors,
        default=(None, None, None),
        metavar="N,U,B",
        help="sockets that listen at these three addresses already",
    )
    parser.add_argument("--bootstrap", type=Path, help="users and nodes for an empty store (JSON)")
    parser.add_argument("--while-stdin", action="store_true", help="end when standard input does")
    parser.add_argument("--log", type=Path, help="log to this file, and not to stderr")
    levels = ("DEBUG", "INFO", "WARNING", "ERROR")
    parser.add_argument("--log-level", default="INFO", type=str.upper, choices=levels)
    given = parser.parse_args(arguments)
    if given.home is None:
        try:
            given.home = home_folder() / "manager"
        except NoHome as error:
            parser.error(str(error))
    return given


def _lease(text: str) -> float:
    seconds = float(text)
    if not LEAST_LEASE <= seconds <= MOST_LEASE:
        raise argparse.ArgumentTypeError(f"give {LEAST_LEASE:g} to {MOST_LEASE:g} seconds")
    return seconds


def _descriptors(text: str) -> tuple[int, int, int]:
    nodes, users, bulk = map(int, text.split(","))  # argparse turns a ValueError into a sentence
    return nodes, users, bulk
