"""`manta sign-in`, `sign-out` and `token ...`"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from manta.cli import text
from manta.cli.common import usage, with_api

if TYPE_CHECKING:
    from manta.apis.user_api import UserAPI


@click.command("sign-in")
@click.option("--email", prompt=True)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--host", help="The manager's host.")
@click.option("--port", type=click.IntRange(1, 65535), help="Its user port.")
@click.option("--server-key", help="Its public key, unless it runs on this machine.")
@click.option("--profile", help="Where to remember it; `default` if left out.")
def sign_in(
    email: str,
    password_stdin: bool,
    host: str | None,
    port: int | None,
    server_key: str | None,
    profile: str | None,
) -> None:
    """Sign in to a manager; from then on commands need no token."""
    from manta.apis import profiles
    from manta.apis.user_api import UserAPI

    usage(lambda: profiles.for_sign_in(host, port, profile, server_key))  # before it is asked for
    password = (
        sys.stdin.readline().rstrip("\n")
        if password_stdin
        else click.prompt("Password", hide_input=True)
    )
    signed_in = usage(lambda: UserAPI.sign_in(email, password, host, port, profile, server_key))
    with signed_in as api:
        where = api.connection.session.target
        click.echo(f"Signed in to {where.host}:{where.port} as {api.get_user().email}.")


@click.command("sign-out")
@click.option("--everywhere", is_flag=True, help="On whatever machine this user is signed in.")
@with_api
def sign_out(api: UserAPI, everywhere: bool) -> None:
    """Forget this machine's key and token; the manager refuses them from now on."""
    where = api.connection.session.target
    api.logout(everywhere)
    click.echo(f"Signed out of {where.host}:{where.port}.")


@click.group()
def token() -> None:
    """Use and show this machine's token."""


@token.command()
@click.option("--host", help="The manager's host.")
@click.option("--port", type=click.IntRange(1, 65535), help="Its user port.")
@click.option("--profile", help="Where to keep it; `default` if left out.")
def use(host: str | None, port: int | None, profile: str | None) -> None:
    """Read a token from standard input, bind it to this machine's key, and keep it."""
    from manta.apis import profiles
    from manta.apis.session import Session
    from manta.apis.user_api import UserAPI

    if sys.stdin.isatty():
        given = click.prompt("Token", hide_input=True).strip()
    else:
        given = sys.stdin.readline().strip()
    manager_key = profiles.claims(given).manager_key
    found, keys = profiles.for_sign_in(host, port, profile, manager_key)
    target = profiles.Target(found.host, found.port, found.profile, given, manager_key)
    with UserAPI.over(Session(target, keys)) as api:
        email = api.get_user().email
    profiles.remember(target, email, given)
    click.echo(f"This machine is {email} at {target.host}:{target.port}.")


@token.command()
@with_api
def rotate(api: UserAPI) -> None:
    """Take a new token in place of this machine's; the old one is worth nothing any more."""
    api.rotate_token()
    click.echo("This machine has a new token; whoever shows the old one revokes both.")


@token.command()
@click.option("--profile", help="Of which profile.")
def show(profile: str | None) -> None:
    """Say whose token this is and how long it serves; the token itself is not shown."""
    from manta.apis import profiles
    from manta.apis.errors import TokenRefused

    target = profiles.resolve(profile=profile)
    if not target.token:
        raise TokenRefused(
            f"Profile {target.profile!r} has no token: sign in, or `manta token use`."
        )
    claims = profiles.claims(target.token)
    left = claims.expires_at - time.time()
    rows = [
        ("profile", target.profile),
        ("manager", f"{target.host}:{target.port}"),
        ("its key", claims.manager_key),
        ("user", claims.subject),
        ("expires", f"in {text.seconds(left)}" if left > 0 else f"{text.seconds(-left)} ago"),
    ]
    for line in text.table(("", ""), rows)[1:]:
        click.echo(line)
