"""`manta config ...`: profiles, and where each setting comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from manta.cli.options import usage
from manta.cli.tables import emit, field
from manta.console.commands import Group, as_json_option, say

if TYPE_CHECKING:
    from manta.apis.connect.profiles import Profile

_PROFILES = {
    "": lambda record: "*" if record["used"] else "",
    "name": field("name"),
    "host": field("host"),
    "port": field("port"),
    "email": field("email"),
    "signed in": lambda record: "yes" if record["signed_in"] else "",
}
_SETTINGS = {"setting": field("setting"), "value": field("value")}
_KEYS = ("host", "port", "server_key")

profile_option = click.option("--profile", help="The profile.  [default: the one in use]")


@click.group(cls=Group)
def config() -> None:
    """Manage profiles: the managers that this machine knows, and who uses them."""


@config.command("list")
@as_json_option
def list_(as_json: bool) -> None:
    """List profiles; `*` marks the one in use."""
    from manta.apis.connect import profiles

    folder = profiles.home()
    used = profiles.settings()["profile"].value
    records = [
        {
            **_record(name, found),
            "signed_in": (folder / "credentials" / f"{name}.json").exists(),
            "used": name == used,
        }
        for name, found in profiles.profiles(folder).items()
    ]
    emit(
        records,
        _PROFILES,
        as_json=as_json,
        nothing="No profiles yet: `manta sign-in` creates one.",
    )


@config.command()
@profile_option
@click.option("--origin", is_flag=True, help="Also show where each value comes from.")
@as_json_option
def show(profile: str | None, origin: bool, as_json: bool) -> None:
    """Show the settings that commands use; of the token, only its user.

    An argument wins over a variable (MANTA_HOST, MANTA_PORT, MANTA_TOKEN, MANTA_PROFILE), a
    variable over the profile, and the profile over the default.
    """
    from manta.apis.connect import profiles

    records = []
    for name, found in usage(lambda: profiles.settings(profile=profile)).items():
        value: Any = found.value
        if name == "token" and value:
            value = f"of user {profiles.claims(str(value)).subject}"
        records.append({"setting": name, "value": value, "origin": found.origin})
    columns = {**_SETTINGS, **({"origin": field("origin")} if origin else {})}
    emit(records, columns, as_json=as_json, nothing="")


@config.command("set")
@click.argument("key", type=click.Choice(_KEYS))
@click.argument("value")
@profile_option
@as_json_option
def set_(key: str, value: str, profile: str | None, as_json: bool) -> None:
    """Set KEY of a profile to VALUE; creates the profile if there is none."""
    from msgspec import ValidationError, convert

    from manta.apis.connect import profiles

    folder = profiles.home()
    name = profile or str(profiles.settings()["profile"].value)
    if key == "server_key":
        _check_key(value)
    given: dict[str, object] = {key: value}
    if key == "host":
        host, port = usage(lambda: profiles.check_host(value))
        given = {"host": host} if port is None else {"host": host, "port": port}

    def change(fields: dict[str, object]) -> Profile:
        try:
            return convert({**fields, **given}, profiles.Profile, strict=False)
        except ValidationError:
            raise click.UsageError(
                f"{value!r} is not a port: give a number from 1 to 65535."
            ) from None

    changed = usage(lambda: profiles.change_profile(folder, name, change))
    say(_record(name, changed), f"Set {key} of profile {name} to {value}.", as_json=as_json)


def _check_key(value: str) -> None:
    from manta.transports.errors import LocalTransportError
    from manta.transports.security.keys import check_key

    try:
        check_key(value, "server_key")
    except LocalTransportError as error:
        raise click.UsageError(f"{error}.") from None


@config.command()
@click.argument("name")
@as_json_option
def use(name: str, as_json: bool) -> None:
    """Use the profile NAME when no other is named."""
    from manta.apis.connect import profiles

    folder = profiles.home()
    usage(lambda: profiles.use_profile(folder, name))
    found = profiles.load_profile(folder, name, required=False)
    say(_record(name, found), f"Profile {name} is now in use.", as_json=as_json)


@config.command()
@click.argument("name")
@click.confirmation_option("--yes", prompt="Remove the profile, its token and its key?")
@as_json_option
def rm(name: str, as_json: bool) -> None:
    """Remove the profile NAME with its token and key; `manta sign-out` revokes the token first."""
    from manta.apis.connect import profiles

    usage(lambda: profiles.remove_profile(profiles.home(), name))
    say({"name": name, "removed": True}, f"Removed profile {name}.", as_json=as_json)


def _record(name: str, found: Profile) -> dict[str, Any]:
    return {
        "name": name,
        "host": found.host,
        "port": found.port,
        "email": found.email,
        "server_key": found.server_key,
    }
