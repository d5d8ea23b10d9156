"""`manta user ...` and `manta role ...`"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from manta.cli.options import cluster_option, password_option, with_api
from manta.cli.prompts import secret
from manta.cli.tables import age, emit, field, ident, show_record
from manta.console.commands import Group, say

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI

_USERS = {
    "id": ident("id"),
    "email": field("email"),
    "admin": lambda record: "yes" if record["admin"] else "",
    "roles": lambda record: ", ".join(f"{g.role} in {g.cluster_name}" for g in record["grants"]),
    "created": age("created_at"),
}
_ROLES = {
    "name": field("name"),
    "rights": lambda record: ", ".join(record["rights"]),
    "builtin": lambda record: "yes" if record["builtin"] else "",
}


@click.group(cls=Group)
def user() -> None:
    """Add, list and delete users."""


@user.command("list")
@with_api
def list_(api: UserAPI, as_json: bool) -> None:
    """List users and their roles."""
    emit(api.list_users(), _USERS, as_json=as_json, nothing="No users.")


@user.command("show")
@click.argument("name", required=False, metavar="[USER]")
@with_api
def show_user(api: UserAPI, name: str | None, as_json: bool) -> None:
    """Show USER, or who you are: roles by cluster."""
    found = api.get_user(name)
    show_record(found, _USERS, as_json=as_json)


@user.command("add")
@click.argument("email")
@click.option("--admin", is_flag=True, help="Give every right in every cluster.")
@password_option
@with_api
def add_user(api: UserAPI, email: str, admin: bool, password_stdin: bool, as_json: bool) -> None:
    """Add the user EMAIL, who then signs in with the password (`manta sign-in`)."""
    made = api.add_user(email, secret("Password", from_stdin=password_stdin), admin)
    say(made, f"Added user {made.email} ({made.id}).", as_json=as_json)


@user.command("rm")
@click.argument("name", metavar="USER")
@with_api
def remove_user(api: UserAPI, name: str, as_json: bool) -> None:
    """Delete USER, whose keys and tokens stop working at once."""
    found = api.get_user(name)
    api.delete_user(found)
    gone = {"id": found.id, "email": found.email, "removed": True}
    say(gone, f"Deleted user {found.email}.", as_json=as_json)


@user.command("passwd")
@click.option("--password-stdin", is_flag=True, help="Read both from standard input, a line each.")
@with_api
def passwd(api: UserAPI, password_stdin: bool, as_json: bool) -> None:
    """Change your own password."""
    old = secret("Old password", from_stdin=password_stdin)
    api.change_password(old, secret("New password", from_stdin=password_stdin))
    say(api.get_user(), "Changed the password.", as_json=as_json)


@click.group(cls=Group)
def role() -> None:
    """Grant and revoke roles, and define new ones."""


@role.command("list")
@with_api
def list_roles(api: UserAPI, as_json: bool) -> None:
    """List roles and the rights of each."""
    records = api.list_roles()
    emit(records, _ROLES, as_json=as_json, nothing="No roles.")


@role.command("grant")
@click.argument("user_", metavar="USER")
@click.argument("role_", metavar="ROLE")
@cluster_option
@with_api
def grant(api: UserAPI, user_: str, role_: str, cluster: str, as_json: bool) -> None:
    """Give USER a ROLE in a cluster, replacing the one they had there."""
    found = api.grant_role(user_, cluster, role_)
    say(found, f"{found.email} now has the role {role_} in {cluster}.", as_json=as_json)


@role.command("revoke")
@click.argument("user_", metavar="USER")
@cluster_option
@with_api
def revoke(api: UserAPI, user_: str, cluster: str, as_json: bool) -> None:
    """Take away the role that USER has in a cluster."""
    found = api.revoke_role(user_, cluster)
    say(found, f"{found.email} no longer has a role in {cluster}.", as_json=as_json)


@role.command("create")
@click.argument("name")
@click.argument("rights", nargs=-1, required=True, metavar="RIGHT...")
@with_api
def create(api: UserAPI, name: str, rights: tuple[str, ...], as_json: bool) -> None:
    """Define the role NAME with each RIGHT given (`manta role list` shows rights)."""
    made = api.create_role_definition(name, rights)
    say(made, f"Created role {made.name}: {', '.join(made.rights)}.", as_json=as_json)


@role.command("rm")
@click.argument("name")
@with_api
def remove_role(api: UserAPI, name: str, as_json: bool) -> None:
    """Delete the role NAME, which nobody may still have."""
    api.delete_role_definition(name)
    say({"name": name, "removed": True}, f"Deleted role {name}.", as_json=as_json)
