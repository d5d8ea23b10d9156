"""`manta_node doctor`."""

from __future__ import annotations

import click

from manta.node.cli_config import AS_JSON, NAME


@click.command()
@NAME
@AS_JSON
def doctor(name: str, as_json: bool) -> int:
    """Check this machine."""
    return 0
