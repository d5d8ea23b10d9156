"""`manta manager ...`: a manager on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from manta.cli.commands.audit import audit
from manta.cli.commands.backups import backup, restore, verify
from manta.cli.exit_codes import LocalError
from manta.cli.local.manager import (
    daemon_command,
    daemon_environment,
    given_up,
    home_of,
    kept,
    running,
    start_in_background,
    strangers,
)
from manta.cli.options import Command, manager_home_option, password_option
from manta.cli.prompts import secret
from manta.cli.tables import show_fields
from manta.console import early, json_form, text
from manta.console.commands import Group, as_json_option, say
from manta.console.exit_codes import Exit
from manta.console.terminal import print_lines

if TYPE_CHECKING:
    from manta.manager.home import Home, KeeperFile, ManagerFile, StrangersFile

STOPPED = 15.0
"""Seconds that a manager has to stop."""


def _port(name: str, words: str, default: int) -> Callable[[Command], Command]:
    words = f"{words}  [default: as at the last start, at first {default}]"
    return click.option(name, type=click.IntRange(1, 65535), help=words)


class _Seconds(click.FloatRange):
    """A range that has no place for `nan`, which is neither below nor above any bound."""

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        found = super().convert(value, param, ctx)
        return found if found == found else self.fail(f"{value} is not a number.", param, ctx)


class _KeySource(click.ParamType[str]):
    name = "source"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        from manta.transports.security.owner_key import KeySource

        try:
            source = KeySource.parse(value)
        except ValueError as error:
            return self.fail(f"{error}.", param, ctx)
        if source.kind == "file":
            source = source._replace(name=os.path.abspath(os.path.expanduser(source.name)))
        return str(source)


@click.group(cls=Group)
def manager() -> None:
    """Start, stop, back up and restore a manager on this machine."""


for command in (backup, restore, verify, audit):
    manager.add_command(command)


@manager.command(short_help="Start a manager; the first start creates the first user.")
@manager_home_option
@click.option(
    "--host",
    help="The address to listen on; :: is all, of IPv6 and IPv4.  "
    "[default: as at the last start, at first 0.0.0.0]",
)
@_port("--node-port", "Where nodes connect.", 50051)
@_port("--user-port", "Where users connect.", 50052)
@_port("--bulk-port", "Where large values move.", 50053)
@click.option(
    "--lease",
    type=_Seconds(2, 7 * 86400),
    metavar="SECONDS",
    help="How long a node may be silent before it counts as lost.  "
    "[default: as at the last start, at first 20]",
)
@click.option(
    "--encryption-key-from",
    type=_KeySource(),
    metavar="file:PATH|env:NAME|keyring:NAME",
    help="Where the key is with which large values are encrypted on the disk.  "
    "[default: as at the last start, at first none: they are not]",
)
@click.option(
    "--background",
    is_flag=True,
    help="Return once it is ready; it logs to a file, and is started again if it dies.",
)
@click.option("--json", "as_json", is_flag=True, help="With --background: print JSON.")
def start(
    home: str | None,
    host: str | None,
    node_port: int | None,
    user_port: int | None,
    bulk_port: int | None,
    lease: float | None,
    encryption_key_from: str | None,
    background: bool,
    as_json: bool,
) -> None:
    """Start a manager; the first start creates the first user and shows how to sign in, once."""
    host = None if host is None else _address(host)
    place = home_of(home)
    if (found := running(place)) is not None:
        raise LocalError(
            f"A manager already runs in {place.path} (process {found.pid}): stop it first."
        )
    if (note := kept(place)) is not None:
        raise LocalError(
            f"A manager is being started in {place.path} (by process {note.pid}): wait for it, or "
            "stop it first (manta manager stop)."
        )
    command = daemon_command(
        place, host, node_port, user_port, bulk_port, lease, encryption_key_from
    )
    if not background:
        sys.stdout.flush()
        early.hold()
        os.execve(command[0], command, daemon_environment(command))
    started = start_in_background(place, command)
    if as_json:
        password = {"first_password": started.first_password} if started.first_password else {}
        json_form.show({**_record(started.file, place), "log": started.log, **password})
        return
    print_lines(*started.logged.split("\n"))
    if started.said:
        print_lines(*started.said.split("\n"))
    print_lines(
        f"It runs in the background as process {started.file.pid}, logging to {started.log}."
    )


def _address(host: str) -> str:
    """Returns the host, without brackets. Raises click.BadParameter."""
    from manta.transports.addresses import split_host

    if host == "*":
        return host
    try:
        found, port = split_host(host)
    except ValueError as error:
        raise click.BadParameter(f"{host!r}: {error}.", param_hint="--host") from None
    if port is not None:
        raise click.BadParameter(
            f"{host!r} names a port: give --node-port, --user-port and --bulk-port.",
            param_hint="--host",
        )
    return found


@manager.command(short_help="Show whether a manager runs here, and where it listens.")
@manager_home_option
@as_json_option
def status(home: str | None, as_json: bool) -> int:
    """Show whether a manager runs here, and where it listens; the exit code is 7 if none does."""
    place = home_of(home)
    found, note = running(place), kept(place)
    if found is None:
        note = note or given_up(place)
        say(
            {"running": False, "home": place.path, **_kept_record(note)},
            f"No manager runs in {place.path}{_why(note)}.",
            as_json=as_json,
        )
        return Exit.UNREACHABLE
    turned_away = strangers(place)
    rows = [
        ("process", str(found.pid)),
        ("up for", text.seconds(time.time() - found.started_at)),
        ("started again", _again(note)),
        ("nodes", found.nodes),
        ("users", found.users),
        ("bulk", found.bulk),
        ("public key", found.public_key),
        ("version", found.version),
        ("folder", str(place.path)),
        ("strangers", _strangers(turned_away)),
    ]
    record = {**_record(found, place), **_kept_record(note), "strangers": turned_away}
    show_fields(record, [(name, value) for name, value in rows if value], as_json=as_json)
    return Exit.OK


def _again(note: KeeperFile | None) -> str:
    if note is None or not note.starts_again:
        return ""
    times = "once" if note.starts_again == 1 else f"{note.starts_again} times"
    ago = text.seconds(max(0.0, time.time() - note.last_end_at))
    return f"{times}; the last one {note.last_end} {ago} ago"


def _why(note: KeeperFile | None) -> str:
    if note is None or not note.last_end:
        return ""
    if note.gave_up:
        return (
            f": the last one {note.last_end}, as others had before, and is not started again; "
            "manager.log there says why it ended"
        )
    return f": the last one {note.last_end}, and is being started again"


def _kept_record(note: KeeperFile | None) -> dict[str, object]:
    return {
        "starts_again": note and note.starts_again,
        "last_end": (note and note.last_end) or None,
        "last_end_at": (note and note.last_end_at) or None,
        "gave_up": note and note.gave_up,
    }


def _strangers(turned_away: StrangersFile) -> str:
    counts = (
        (turned_away.late, "cut that did not enrol or sign in in time"),
        (turned_away.unfinished, "cut that did not finish a handshake and say a word"),
        (turned_away.crowded, "cut as others came after them"),
        (turned_away.surplus, "of known keys cut as descriptors ran out"),
        (turned_away.put_off, "put off"),
    )
    return "; ".join(f"{count} {words}" for count, words in counts if count)


def _record(found: ManagerFile, home: Home) -> dict[str, object]:
    from msgspec.structs import asdict

    return {"running": True, "home": home.path, **asdict(found)}


@manager.command(
    "reset-password", short_help="Give a user of the manager that is stopped here a new password."
)
@manager_home_option
@click.option("--email", help="The user.  [default: the only administrator]")
@password_option
@as_json_option
def reset_password(
    home: str | None, email: str | None, password_stdin: bool, as_json: bool
) -> None:
    """Give a user a new password, for who owns the manager's folder; stop the manager before.

    The password is made up and shown once, unless it is read with --password-stdin. Machines where
    the user is signed in are signed out.
    """
    from manta.manager import recovery
    from manta.manager.auth import passwords
    from manta.manager.errors import ManagerError

    place = home_of(home)
    given = secret("Password", from_stdin=True) if password_stdin else None
    if given is not None and (flaw := passwords.flaw(given)):
        raise click.UsageError(flaw)
    password = given or passwords.random_password()
    try:
        whose = recovery.reset_password(place, email, password)
    except ManagerError as error:
        raise LocalError(str(error)) from None
    record = {"home": place.path, "email": whose}
    sentence = f"{whose} has a new password."
    if given is None:
        record["password"] = password
        sentence = f"{whose} has the password  {password}  which is shown only now."
    say(record, sentence, as_json=as_json)


@manager.command(short_help="Stop the manager that runs here.")
@manager_home_option
@as_json_option
def stop(home: str | None, as_json: bool) -> None:
    """Stop the manager that runs here; nodes keep their tasks running and wait for it."""
    place = home_of(home)
    found, keeper = running(place), kept(place)
    # Whoever keeps it running would take its end for an accident, unless told itself.
    told = keeper or found
    if told is None:
        raise LocalError(f"No manager runs in {place.path}.")
    pid = found.pid if found is not None else told.pid
    try:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(told.pid, signal.SIGTERM)
    except PermissionError:
        raise LocalError(f"Process {told.pid} is another user's: ask that user.") from None
    deadline = time.monotonic() + STOPPED
    while place.is_in_use() or place.is_kept():
        if time.monotonic() > deadline:
            raise LocalError(
                f"The manager (process {pid}) has not ended after {STOPPED:g} s: "
                f"see its log, or end it with `kill -9 {pid}`."
            )
        time.sleep(0.02)
    stopped = {"running": False, "home": place.path, "pid": pid}
    say(stopped, "Stopped the manager.", as_json=as_json)
