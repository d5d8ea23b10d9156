"""`manta sign-in`, `sign-out`, `whoami` and `token ...`"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from manta.cli.options import address_options, password_option, usage, with_api
from manta.cli.prompts import secret
from manta.cli.tables import show_fields
from manta.console import text
from manta.console.commands import Group, as_json_option, say

if TYPE_CHECKING:
    from manta.apis.connect.profiles import Target
    from manta.apis.user_api import UserAPI


@click.command("sign-in")
@click.option("--email", prompt=True, help="Your email address; asked for if omitted.")
@password_option
@address_options
@click.option("--server-key", help="The manager's public key, unless it runs on this machine.")
@click.option("--profile", help="The profile to save it under.  [default: default]")
@as_json_option
def sign_in(
    email: str,
    password_stdin: bool,
    host: str | None,
    port: int | None,
    server_key: str | None,
    profile: str | None,
    as_json: bool,
) -> None:
    """Sign in to a manager; after that, commands need no token."""
    from manta.apis.connect import profiles
    from manta.apis.user_api import UserAPI

    usage(lambda: profiles.for_sign_in(host, port, profile, server_key))  # before it is asked for
    password = secret("Password", from_stdin=password_stdin)
    signed_in = usage(lambda: UserAPI.sign_in(email, password, host, port, profile, server_key))
    with signed_in as api:
        where, me = api.connection.session.target, api.get_user()
    sentence = f"Signed in to {where.place} as {me.email}."
    say(_identity(where, me.email), sentence, as_json=as_json)


@click.command("sign-out")
@click.option("--everywhere", is_flag=True, help="On all machines where you are signed in.")
@with_api
def sign_out(api: UserAPI, everywhere: bool, as_json: bool) -> None:
    """Sign out: revoke this machine's key and token and delete them here."""
    where, me = api.connection.session.target, api.get_user()
    api.logout(everywhere)
    sentence = f"Signed out of {where.place}."
    say({**_identity(where, me.email), "everywhere": everywhere}, sentence, as_json=as_json)


@click.command()
@click.option("--profile", help="The profile.  [default: the one in use]")
@as_json_option
def whoami(profile: str | None, as_json: bool) -> None:
    """Show who you are, and the fingerprint of the key that signs your swarms.

    Owners of nodes put it into their policies, or compare it with what `manta_node approve` shows.
    """
    from manta.apis.connect import profiles
    from manta.protocol.signed import fingerprint, public_of

    name = str(usage(lambda: profiles.settings(profile=profile))["profile"].value)
    saved = profiles.load_profile(profiles.home(), name, required=False)
    key = fingerprint(public_of(profiles.user_key(profiles.home(), name).secret))
    record = {"profile": name, "email": saved.email, "host": saved.host, "fingerprint": key}
    rows = [
        ("user", saved.email or "not signed in"),
        ("profile", name),
        ("manager", saved.host or "none"),
        ("swarms are signed by", key),
    ]
    show_fields(record, rows, as_json=as_json)


@click.group(cls=Group)
def token() -> None:
    """Use, show and rotate this machine's token; make one for another; revoke a user's."""


@token.command()
@address_options
@click.option("--profile", help="The profile to save it under.  [default: default]")
@as_json_option
def use(host: str | None, port: int | None, profile: str | None, as_json: bool) -> None:
    """Read a token from standard input, bind it to this machine's key, and save it."""
    from manta.apis.connect import profiles
    from manta.apis.connect.session import Session
    from manta.apis.user_api import UserAPI

    given = secret("Token", from_stdin=not sys.stdin.isatty()).strip()
    manager_key = profiles.claims(given).manager_key
    found, keys = profiles.for_sign_in(host, port, profile, manager_key)
    target = profiles.Target(found.host, found.port, found.profile, given, manager_key)
    with UserAPI.over(Session(target, keys)) as api:
        email = api.get_user().email
    profiles.remember(target, email, given)
    sentence = f"Signed in to {target.place} as {email}."
    say(_identity(target, email), sentence, as_json=as_json)


@token.command()
@click.option("--for-key", metavar="KEY", help="That machine's key: `manta token key` shows it.")
@with_api
def create(api: UserAPI, for_key: str | None, as_json: bool) -> None:
    """Print a token with which another machine is you: `manta token use` reads it there.

    Without --for-key, the first machine that uses it has it, within a day.
    """
    from manta.apis.connect import profiles

    made = usage(lambda: api.create_user_token(for_key))
    claims = profiles.claims(made)
    record = {"token": made, "for_key": for_key, "expires_at": claims.expires_at}
    say(record, made, as_json=as_json)


@token.command()
@click.option("--profile", help="The profile.  [default: the one in use]")
@as_json_option
def key(profile: str | None, as_json: bool) -> None:
    """Print this machine's public key, for which `manta token create` makes a token elsewhere."""
    from manta.apis.connect import profiles

    name = str(usage(lambda: profiles.settings(profile=profile))["profile"].value)
    public = profiles.user_key(profiles.home(), name).public
    say({"profile": name, "key": public}, public, as_json=as_json)


@token.command()
@with_api
def rotate(api: UserAPI, as_json: bool) -> None:
    """Replace this machine's token with a new one, with which alone new sign-ins are made."""
    api.rotate_token()
    where = api.connection.session.target
    sentence = "This machine has a new token. If another one shows the old one, both are revoked."
    say(_identity(where, api.get_user().email), sentence, as_json=as_json)


@token.command()
@click.argument("user", metavar="USER")
@click.confirmation_option("--yes", prompt="Revoke all tokens of this user, on every machine?")
@with_api
def revoke(api: UserAPI, user: str, as_json: bool) -> None:
    """Revoke all tokens and keys of USER at once; for administrators.

    USER must sign in again on each machine. `manta sign-out --everywhere` does it for yourself.
    """
    found = api.get_user(user)
    api.revoke_tokens(found)
    ended = {"id": found.id, "email": found.email, "revoked": True}
    say(ended, f"Revoked all tokens of {found.email}.", as_json=as_json)


@token.command()
@click.option("--profile", help="The profile.  [default: the one in use]")
@as_json_option
def show(profile: str | None, as_json: bool) -> None:
    """Show whose token this is and when it expires; the token itself is not shown."""
    from manta.apis.connect import profiles
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
        ("manager", target.place),
        ("its key", claims.manager_key),
        ("user", claims.subject),
        ("expires", f"in {text.seconds(left)}" if left > 0 else f"{text.seconds(-left)} ago"),
    ]
    record = {
        "profile": target.profile,
        "host": target.host,
        "port": target.port,
        "manager_key": claims.manager_key,
        "user_id": claims.subject,
        "expires_at": claims.expires_at,
    }
    show_fields(record, rows, as_json=as_json)


def _identity(target: Target, email: str) -> dict[str, object]:
    return {"profile": target.profile, "host": target.host, "port": target.port, "email": email}
