"""`manta quota ...`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from manta.cli.options import with_api
from manta.cli.tables import emit, field
from manta.console import text
from manta.console.commands import Group, say

if TYPE_CHECKING:
    from manta.apis.overviews import QuotaOverview
    from manta.apis.user_api import UserAPI


def _count(name: str) -> Any:
    def shown(record: QuotaOverview) -> str:
        value = record[name]
        if value is None:
            return ""
        return text.size(value) if record["name"].endswith("-bytes") else f"{value:,}"

    return shown


_COLUMNS = {
    "quota": field("name"),
    "used": _count("used"),
    "limit": _count("limit"),
    "limit is": field("source"),
    "counts": field("counts"),
}
DEFAULT = "default"


class _Shown(Group):
    """Without a command, shows."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Shown)
def quota() -> None:
    """Show how much you may take of the manager, and set how much others may."""


def _of(function: Any) -> Any:
    for name, what in (("cluster", "a cluster"), ("role", "a role"), ("user", "a user")):
        function = click.option(f"--{name}", help=f"Of {what}.")(function)
    return function


@quota.command("show")
@_of
@click.option("--swarm", help="Of a swarm.")
@with_api
def show(
    api: UserAPI,
    user: str | None,
    role: str | None,
    cluster: str | None,
    swarm: str | None,
    as_json: bool,
) -> None:
    """Show your quotas, or those of a user, role, cluster or swarm, and what is used of each."""
    found = api.get_quotas(user, role, cluster, swarm)
    emit(found, _COLUMNS, as_json=as_json, nothing="No quotas.")


@quota.command("set")
@click.argument("quota_", metavar="QUOTA")
@click.argument("limit")
@_of
@with_api
def set_(
    api: UserAPI,
    quota_: str,
    limit: str,
    user: str | None,
    role: str | None,
    cluster: str | None,
    as_json: bool,
) -> None:
    """Set QUOTA to LIMIT for a user, role or cluster: a number, a size such as 20GiB, or
    "default"."""
    value = None if limit == DEFAULT else limit
    made = api.set_quota(quota_, value, user, role, cluster)
    bound = _COLUMNS["limit"](made) or "without a limit"
    say(made, f"The quota {made.name} is {bound} ({made.source}).", as_json=as_json)
