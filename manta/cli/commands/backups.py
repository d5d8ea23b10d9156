"""`manta manager backup`, `restore`, `verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from manta.cli.exit_codes import LocalError
from manta.cli.local.manager import home_of
from manta.cli.options import manager_home_option
from manta.console import text
from manta.console.commands import as_json_option, say
from manta.console.exit_codes import Exit

T = TypeVar("T")


@click.command(short_help="Back up a manager into one file.")
@click.argument("file", type=click.Path(path_type=Path))
@manager_home_option
@as_json_option
def backup(file: Path, home: str | None, as_json: bool) -> None:
    """Back up everything that the manager of this machine keeps into FILE; it may be running.

    The file holds the manager's keys: whoever has it can be the manager.
    """
    from manta.manager import backup as backups

    made = _told(lambda: backups.backup(home_of(home), file.absolute()))
    size = sum(member.size for member in made.members.values())
    record = {"file": file, "id": made.id, "made_at": made.made_at}
    record |= {"blobs": len(made.blobs), "size": size}
    blobs = text.count(len(made.blobs), "blob")
    say(record, f"{file}: keys, database and {blobs}, {text.size(size)}.", as_json=as_json)


@click.command(short_help="Restore a manager's folder from a backup.")
@click.argument("file", type=click.Path(path_type=Path))
@manager_home_option
@click.option("--replace", is_flag=True, help="Even if the folder is not empty; it is kept.")
@as_json_option
def restore(file: Path, home: str | None, replace: bool, as_json: bool) -> None:
    """Restore the manager's folder from the backup FILE; then run `manta manager start`.

    Swarms continue from where they were when the backup was made, and run again the tasks that
    were running then. Nodes that enrolled later need a new token.
    """
    from manta.manager import backup as backups

    place = home_of(home)
    made, kept, flaws = _told(lambda: backups.restore(file, place, replace=replace))
    record = {"home": place.path, "id": made.id, "made_at": made.made_at, "kept": kept}
    record["flaws"] = flaws
    sentence = f"Restored {place.path} from {file}."
    if kept is not None:
        sentence += f" The previous folder is now {kept}."
    say(record, [sentence, *flaws], as_json=as_json)


@click.command(short_help="Check that a manager's data, or a backup, is intact.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@manager_home_option
@as_json_option
def verify(file: Path | None, home: str | None, as_json: bool) -> int:
    """Check that database, keys and blobs are intact: the manager's, or those of a backup FILE.

    The exit code is 0 when they are and 11 when not; the manager may be running.
    """
    from manta.manager import backup as backups

    found = _told(
        lambda: backups.verify_home(home_of(home)) if file is None else backups.verify_file(file)
    )
    record = {"path": found.path, "intact": not found.flaws, "flaws": found.flaws}
    record |= {"blobs": found.blobs, "size": found.size}
    blobs = text.count(found.blobs, "blob")
    whole = f"{found.path} is intact: database, keys and {blobs}, {text.size(found.size)}."
    say(record, found.flaws or whole, as_json=as_json)
    return Exit.LOCAL if found.flaws else Exit.OK


def _told(work: Callable[[], T]) -> T:
    from manta.manager.backup import BackupError

    try:
        return work()
    except BackupError as error:
        raise LocalError(str(error)) from None
