"""`manta_node audit`: the log of what was done with the owner's data."""

from __future__ import annotations

from pathlib import Path

import click

from manta.console import audit as shared
from manta.console.commands import Group
from manta.node.cli.config import NAME
from manta.node.daemon.places import must_be_known, state_folder
from manta.node.errors import OperatorError


@click.group(cls=Group)
def audit() -> None:
    """Verify or export the node's audit log: what ran here, for whom, with which data."""


@audit.command("verify")
@NAME
@shared.verify_options
def audit_verify(
    name: str,
    folder: Path | None,
    keys: tuple[str, ...],
    heads: tuple[tuple[int, str], ...],
    anchors: Path | None,
    as_json: bool,
) -> int:
    """Check that the log is as it was written; the node may be running.

    The exit code is 0 if it is, and 11 if not: then the first record that is wrong is named. What
    the manager keeps of the log (`manta manager audit export`) is checked with --anchors.
    """
    if folder is not None:
        return shared.verify_copy(folder, keys, heads, anchors, as_json=as_json)
    must_be_known(name)
    state = state_folder(name)
    if not state.audit.exists():
        raise OperatorError(shared.no_log(state.audit))
    public = shared.public_key(state.key().secret.encode()) if state.key_file.exists() else ""
    return shared.verify(state.audit, public, keys, heads, anchors, as_json=as_json)


@audit.command("export")
@NAME
@shared.export_options
def audit_export(
    name: str, since: float | None, until: float | None, form: str, as_json: bool
) -> None:
    """Print the records, the oldest first; the node may be running."""
    must_be_known(name)
    folder = state_folder(name).audit
    if not folder.exists():
        raise OperatorError(shared.no_log(folder))
    shared.export(folder, since, until, form, as_json=as_json)
