"""`manta manager audit`: the log of what users did."""

from __future__ import annotations

from pathlib import Path

import click

from manta.cli.exit_codes import LocalError
from manta.cli.local.manager import home_of
from manta.cli.options import manager_home_option
from manta.console import audit as shared
from manta.console.commands import Group


@click.group(cls=Group, short_help="Verify or export the log of what users did.")
def audit() -> None:
    """Verify or export the audit log of the manager of this machine: who did what, and when."""


@audit.command("verify", short_help="Check that the log is as it was written.")
@manager_home_option
@shared.verify_options
def audit_verify(
    home: str | None,
    folder: Path | None,
    keys: tuple[str, ...],
    heads: tuple[tuple[int, str], ...],
    anchors: Path | None,
    as_json: bool,
) -> int:
    """Check that the log is as it was written; the manager may be running.

    The exit code is 0 if it is, and 11 if not: then the first record that is wrong is named. What
    a node keeps of the log (`manta_node audit export`) is checked with --anchors.
    """
    from manta.manager.audit import signing_seed

    if folder is not None:
        return shared.verify_copy(folder, keys, heads, anchors, as_json=as_json)
    place = home_of(home)
    _check(place.audit)
    try:
        public = shared.public_key(signing_seed(place))
    except ValueError as error:
        raise LocalError(f"{error}: restore it from a backup, or verify with --folder.") from None
    return shared.verify(place.audit, public, keys, heads, anchors, as_json=as_json)


@audit.command("export", short_help="Print the records.")
@manager_home_option
@shared.export_options
def audit_export(
    home: str | None, since: float | None, until: float | None, form: str, as_json: bool
) -> None:
    """Print the records, the oldest first; the manager may be running."""
    folder = home_of(home).audit
    _check(folder)
    shared.export(folder, since, until, form, as_json=as_json)


def _check(folder: Path) -> None:
    if not folder.exists():
        raise LocalError(shared.no_log(folder))
