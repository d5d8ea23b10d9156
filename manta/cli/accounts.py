"""`manta user ...` and `manta role ...`"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from manta.cli.common import age, as_json_option, emit, field, plain, with_api

if TYPE_CHECKING:
    from manta.apis.overviews import UserOverview
    from manta.apis.user_api import UserAPI

_USERS = {
    "id": field("id"),
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


@click.group()
def user() -> None:
    """Add, list and delete users."""


@user.command("list")
@as_json_option
@with_api
def list_(api: UserAPI, as_json: bool) -> None:
    """List users and their roles."""
    _emit(api.list_users(), as_json=as_json)


@user.command("show")
@click.argument("name", required=False, metavar="[USER]")
@as_json_option
@with_api
def show_user(api: UserAPI, name: str | None, as_json: bool) -> None:
    """Show USER, or who you are: roles by cluster."""
    _emit([api.get_user(name)], as_json=as_json)


@user.command("add")
@click.argument("email")
@click.option("--admin", is_flag=True, help="With every right in every cluster.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@as_json_option
@with_api
def add_user(api: UserAPI, email: str, admin: bool, password_stdin: bool, as_json: bool) -> None:
    """Add a user, who then signs in with the password (manta sign-in)."""
    made = api.add_user(email, _password("Password", password_stdin), admin)
    _say(made, f"User {made.email} ({made.id}) is added.", as_json=as_json)


@user.command("rm")
@click.argument("name", metavar="USER")
@with_api
def remove_user(api: UserAPI, name: str) -> None:
    """Delete USER: keys and tokens end at once."""
    found = api.get_user(name)
    api.delete_user(found)
    click.echo(f"User {found.email} is deleted.")


@user.command("passwd")
@click.option("--password-stdin", is_flag=True, help="Read the old and the new one from lines.")
@with_api
def passwd(api: UserAPI, password_stdin: bool) -> None:
    """Change your own password."""
    old = _password("Old password", password_stdin)
    api.change_password(old, _password("New password", password_stdin))
    click.echo("The password is changed.")


@click.group()
def role() -> None:
    """Grant and revoke roles, and define new ones."""


@role.command("list")
@as_json_option
@with_api
def list_roles(api: UserAPI, as_json: bool) -> None:
    """List roles and the rights of each."""
    records = [dict(found) for found in api.list_roles()]
    emit(records, _ROLES, as_json=as_json, nothing="No roles.")


@role.command("grant")
@click.argument("user_", metavar="USER")
@click.argument("role_", metavar="ROLE")
@click.option("--cluster", required=True, help="Its name or id.")
@as_json_option
@with_api
def grant(api: UserAPI, user_: str, role_: str, cluster: str, as_json: bool) -> None:
    """Give USER a ROLE in a cluster, in place of the one that he had there."""
    found = api.grant_role(user_, cluster, role_)
    _say(found, f"User {found.email} is {role_} in {cluster}.", as_json=as_json)


@role.command("revoke")
@click.argument("user_", metavar="USER")
@click.option("--cluster", required=True, help="Its name or id.")
@as_json_option
@with_api
def revoke(api: UserAPI, user_: str, cluster: str, as_json: bool) -> None:
    """Take away the role of USER in a cluster."""
    found = api.revoke_role(user_, cluster)
    _say(found, f"User {found.email} has no role in {cluster} any more.", as_json=as_json)


@role.command("create")
@click.argument("name")
@click.argument("rights", nargs=-1, required=True, metavar="RIGHT...")
@with_api
def create(api: UserAPI, name: str, rights: tuple[str, ...]) -> None:
    """Define a role NAME with these rights (`manta role list` shows rights)."""
    made = api.create_role_definition(name, rights)
    click.echo(f"Role {made.name}: {', '.join(made.rights)}.")


@role.command("rm")
@click.argument("name")
@with_api
def remove_role(api: UserAPI, name: str) -> None:
    """Delete the definition of a role that nobody has."""
    api.delete_role_definition(name)
    click.echo(f"Role {name} is deleted.")


def _password(prompt: str, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\n")
    answer: str = click.prompt(prompt, hide_input=True)
    return answer


def _emit(users: list[UserOverview], *, as_json: bool) -> None:
    emit([dict(found) for found in users], _USERS, as_json=as_json, nothing="No users.")


def _say(found: UserOverview, sentence: str, *, as_json: bool) -> None:
    click.echo(json.dumps(dict(found), default=plain) if as_json else sentence)
