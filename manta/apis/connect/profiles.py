"""Which manager to talk to, and as whom: arguments, environment, and files in `~/.manta`.

    profiles/NAME.json      host, port and the manager's public key
    credentials/NAME.json   the token, sealed (`sealing.py`), mode 0600
    keys/NAME.key           the key pair that the token is bound to, sealed with
                            `MANTA_PASSPHRASE` if that was set as the key was made or the
                            token saved, mode 0600
    profiles/in-use         the profile to use when none is named

`MANTA_HOME` moves the folder. Where other users can change it or a profile, that is refused:
they could name another manager. Settings win in this order: argument, environment
(`MANTA_HOST`, `MANTA_PORT`, `MANTA_TOKEN`, `MANTA_PROFILE`), profile, default.
"""

from __future__ import annotations

import fcntl
import os
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from manta.apis import checks
from manta.apis.connect import key_files
from manta.apis.connect.key_files import PASSPHRASE
from manta.apis.connect.sealing import CannotOpen, Sealed, seal, unseal
from manta.apis.errors import InvalidArgument, NotSealed, ProfileError, TokenRefused
from manta.console.home import NoHome, home_folder
from manta.console.local_manager import remembered_port
from manta.protocol.codes import Code
from manta.protocol.tokens import USER_AUDIENCE, UnreadableToken, peek
from manta.transports.addresses import join_address, join_host, split_host
from manta.transports.codec.decoders import convert, json_decoder
from manta.transports.codec.stored import Damaged, Thing, read_stored, read_stored_file
from manta.transports.errors import KeyFileError, LocalTransportError
from manta.transports.security.keys import (
    KeyPair,
    check_key,
    check_unwritable,
    make_private_folder,
    read_private,
    write_private,
)

if TYPE_CHECKING:
    from manta.protocol.tokens import TokenClaims

DEFAULT = "default"
DEFAULT_HOST = "localhost"
DEFAULT_PORT = 50052
PROFILE = "MANTA_PROFILE"
CONFIG = "profiles/in-use"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    host: str | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    server_key: str | None = None
    email: str | None = None


class Credentials(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Has one of the two; older versions stored a plain `token`."""

    sealed: Sealed | None = None
    token: str | None = None


class Target(msgspec.Struct, frozen=True):
    """A manager and who talks to it. `server_key` is None when nothing names it yet."""

    host: str
    port: int
    profile: str
    token: str | None = None
    server_key: str | None = None

    @property
    def address(self) -> str:
        return join_address(self.host, self.port)

    @property
    def place(self) -> str:
        """As a person reads it."""
        return join_host(self.host, self.port)


def home(environment: Mapping[str, str] = os.environ) -> Path:
    """Raises ProfileError."""
    try:
        found = home_folder(environment).absolute()
        check_unwritable(found)
    except NoHome as error:
        raise ProfileError(str(error)) from None
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None
    return found


class Setting(msgspec.Struct, frozen=True):
    """A value, and where it comes from in words."""

    value: str | int | None
    origin: str


def settings(
    token: str | None = None,
    host: str | None = None,
    port: int | None = None,
    profile: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Setting]:
    """Collects the settings `home`, `profile`, `host`, `port`, `token` and `server_key`.

    Raises InvalidArgument, ProfileError, TokenRefused.
    """
    folder = home(environment)
    chosen = _profile(folder, profile, environment)
    name = _checked(str(chosen.value))
    saved = load_profile(folder, name, required=name != DEFAULT)
    file = f"profile {name}"

    def first(given: object, variable: str, saved_value: object, default: object) -> Setting:
        for value, origin in (
            (checks.plain(given), "argument"),
            (environment.get(variable), variable),
            (saved_value, file),
        ):
            if value not in (None, ""):
                return Setting(value, origin)  # type: ignore[arg-type]
        return Setting(default, "default")  # type: ignore[arg-type]

    where = first(host, "MANTA_HOST", saved.host, DEFAULT_HOST)
    name_of_host, own_port = check_host(where.value)
    where = Setting(name_of_host, where.origin)
    door = first(port, "MANTA_PORT", saved.port, DEFAULT_PORT)
    if door.origin == "default" and (last := remembered_port(folder, "users", where.value)):
        door = Setting(last, "the manager of this machine")
    if door.origin == "MANTA_PORT":
        if not str(door.value).isdecimal():
            raise InvalidArgument(f"MANTA_PORT is {door.value!r}: set it to a number, or unset it.")
        door = Setting(int(str(door.value)), door.origin)
    if own_port is not None:
        door = _door(own_port, where.origin, door)
    checks.integer("port", door.value, 1, 65535)
    ticket = first(token, "MANTA_TOKEN", None, None)
    if ticket.value is None and (kept := load_token(folder, name, environment)):
        ticket = Setting(kept, file)
    key = Setting(None, "default")
    if ticket.value:
        key = Setting(claims(str(ticket.value)).manager_key, "token")
    elif saved.server_key and (where.value, door.value) == (saved.host, saved.port):
        key = Setting(saved.server_key, file)
    elif local := local_server_key(folder):
        key = Setting(local, "the manager of this machine")
    return {
        "home": Setting(str(folder), "MANTA_HOME" if environment.get("MANTA_HOME") else "default"),
        "profile": chosen,
        "host": where,
        "port": door,
        "token": ticket,
        "server_key": key,
    }


def _door(own: int, origin: str, door: Setting) -> Setting:
    """Returns the port where the host, from `origin`, names its `own`. Raises InvalidArgument."""
    if door.origin == origin.replace("HOST", "PORT") and door.value != own:
        raise InvalidArgument(f"host names port {own}, and port is {door.value}: give one of them.")
    is_nearer = door.origin == "argument" or (door.origin == "MANTA_PORT" and origin != "argument")
    return door if is_nearer else Setting(own, origin)


def resolve(
    token: str | None = None,
    host: str | None = None,
    port: int | None = None,
    profile: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Returns the Target that the settings make. Raises what `settings` raises."""
    found = settings(token, host, port, profile, environment)
    values = {name: found[name].value for name in Target.__struct_fields__}
    return convert(values, Target)


def _profile(folder: Path, given: str | None, environment: Mapping[str, str]) -> Setting:
    if given is not None:
        return Setting(given, "argument")
    if environment.get(PROFILE):
        return Setting(environment[PROFILE], PROFILE)
    if (used := used_profile(folder)) is not None:
        return Setting(used, f"{folder / CONFIG}")
    return Setting(DEFAULT, "default")


class _Config(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    profile: str | None = None


def used_profile(folder: Path) -> str | None:
    """Returns the profile that `use_profile` set. Raises ProfileError."""
    _check_unwritable(folder / "profiles", folder / CONFIG)
    thing = Thing(
        f"{folder / CONFIG}",
        "which profile is in use is not known",
        "delete it, then name one (manta config use)",
        "not valid",
    )
    try:
        return read_stored_file(thing, json_decoder(_Config).decode, folder / CONFIG).profile
    except FileNotFoundError:
        return None
    except Damaged as error:
        raise ProfileError(str(error)) from None
    except OSError as error:
        raise ProfileError(f"{folder / CONFIG} can't be read: {error.strerror}.") from None


def use_profile(folder: Path, name: str) -> None:
    """Sets the profile to use when none is named. Raises ProfileError."""
    if name != DEFAULT:
        load_profile(folder, _checked(name), required=True)
    _write(folder / CONFIG, _Config(name))


def profiles(folder: Path) -> dict[str, Profile]:
    """Reads all profiles, by name. Raises ProfileError."""
    names = sorted(path.stem for path in (folder / "profiles").glob("*.json"))
    return {name: load_profile(folder, name, required=True) for name in names}


def remove_profile(folder: Path, name: str) -> None:
    """Removes a profile with its token and key. Raises ProfileError."""
    load_profile(folder, _checked(name), required=True)
    forget(Target("", 0, name), {"MANTA_HOME": str(folder)})
    (folder / "profiles" / f"{name}.json").unlink(missing_ok=True)
    if used_profile(folder) == name:
        (folder / CONFIG).unlink(missing_ok=True)


def for_sign_in(
    host: str | None,
    port: int | None,
    profile: str | None,
    server_key: str | None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Target, KeyPair]:
    """Returns where to sign in and with which key; the profile may be new."""
    folder = home(environment)
    name = _checked(str(_profile(folder, profile, environment).value))
    known = name if (folder / "profiles" / f"{name}.json").exists() else None
    without = {**environment, "MANTA_TOKEN": "", PROFILE: ""}
    found = resolve(None, host, port, known, without)
    if server_key is not None:
        try:
            check_key(server_key, "server_key")
        except LocalTransportError as error:
            raise InvalidArgument(f"{error}.") from None
    key = server_key or found.server_key
    return Target(found.host, found.port, name, None, key), user_key(folder, name, environment)


def remember(
    target: Target, email: str, token: str, environment: Mapping[str, str] = os.environ
) -> None:
    """Saves a sign-in under the target's profile, and seals its key if there is a passphrase."""
    folder = home(environment)
    save_profile(
        folder, target.profile, Profile(target.host, target.port, claims(token).manager_key, email)
    )
    _seal_key(folder, target.profile, environment)
    save_token(folder, target.profile, token, environment)


def forget(target: Target, environment: Mapping[str, str] = os.environ) -> None:
    """Deletes the token and key of a sign-in; host, port and server key stay."""
    folder = home(environment)
    for path in (
        folder / "credentials" / f"{target.profile}.json",
        folder / "keys" / f"{target.profile}.key",
    ):
        path.unlink(missing_ok=True)


def claims(token: str) -> TokenClaims:
    """Reads a user's token. Raises TokenRefused if it is not one."""
    try:
        found = peek(token)
    except UnreadableToken as error:
        raise TokenRefused(str(error), error.code) from None
    if found.audience != USER_AUDIENCE:
        raise TokenRefused(
            "This token is for nodes, not for users: give one of `manta token`, or sign in.",
            Code.TOKEN_AUDIENCE,
        )
    return found


def check_host(host: object) -> tuple[str, int | None]:
    """Returns the host and, if it names one, the port. Raises InvalidArgument."""
    text = checks.name("host", host)
    try:
        return split_host(text)
    except ValueError as error:
        raise InvalidArgument(f"host is {checks.shown(text)}: {error}.") from None


def local_server_key(folder: Path) -> str | None:
    """Returns the key of a manager of this home, so that its first user need not copy it."""
    try:
        thing = Thing("manager.json", "its key is not known", "start that manager again")
        path = folder / "manager" / "manager.json"
        _check_unwritable(path.parent, path)
        return read_stored_file(thing, json_decoder(_Local).decode, path).public_key
    except (OSError, Damaged):
        return None  # none runs here


def _check_unwritable(*paths: Path) -> None:
    """Raises ProfileError where other users could change what is read."""
    try:
        for path in paths:
            check_unwritable(path)
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None


class _Local(msgspec.Struct):
    public_key: str


def load_profile(folder: Path, name: str, *, required: bool) -> Profile:
    path = folder / "profiles" / f"{name}.json"
    _check_unwritable(path.parent, path)
    thing = Thing(
        f"The profile {path}",
        "which manager it is for is not known",
        "correct or delete it, then sign in",
        "not valid",
    )
    try:
        return read_stored_file(thing, json_decoder(Profile).decode, path)
    except FileNotFoundError:
        if not required:
            return Profile()
        there = sorted(file.stem for file in path.parent.glob("*.json"))
        raise ProfileError(
            f"There is no profile {name!r} in {path.parent}: "
            f"there {'are ' + ', '.join(there) if there else 'is none yet'}. "
            f"`manta sign-in --profile {name}` creates it."
        ) from None
    except Damaged as error:
        raise ProfileError(str(error)) from None
    except OSError as error:
        raise ProfileError(f"The profile {path} can't be read: {error.strerror}.") from None


def change_profile(
    folder: Path, name: str, change: Callable[[dict[str, object]], Profile]
) -> Profile:
    """Saves what `change` makes of a profile's fields, and returns it.

    Changes that other processes make at the same time wait for it. Raises ProfileError and what
    `change` raises.
    """
    path = folder / "profiles" / f"{_checked(name)}.json"
    try:
        make_private_folder(path.parent)
        lock = os.open(path.parent / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (KeyFileError, OSError) as error:
        raise ProfileError(f"The profile {path} can't be written: {error}.") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        changed = change(msgspec.structs.asdict(load_profile(folder, name, required=False)))
        save_profile(folder, name, changed)
    finally:
        os.close(lock)
    return changed


def save_profile(folder: Path, name: str, profile: Profile) -> None:
    _write(folder / "profiles" / f"{_checked(name)}.json", profile)


def load_token(folder: Path, name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Returns the token, or None; seals one that is not sealed. Raises ProfileError."""
    path = folder / "credentials" / f"{name}.json"
    _check_unwritable(path.parent)
    if not path.exists():
        return None
    thing = Thing(
        f"The file of credentials {path}",
        "the token in it cannot be used",
        "delete it and sign in again",
    )
    try:
        found = read_stored(thing, json_decoder(Credentials).decode, read_private(path))
        if found.sealed is None and found.token is None:
            raise Damaged(thing, "there is no token in it")
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None
    except Damaged as error:
        raise ProfileError(str(error)) from None
    if found.sealed is None:
        assert found.token is not None
        save_token(folder, name, found.token, environment)
        return found.token
    keys = user_key(folder, name, environment)
    token = _unsealed(found.sealed, path, keys, environment)
    if found.sealed.salt is not None:  # an earlier version sealed the token, and not the key
        _seal_key(folder, name, environment)
        save_token(folder, name, token, environment)
    return token


def _unsealed(sealed: Sealed, path: Path, keys: KeyPair, environment: Mapping[str, str]) -> str:
    try:
        return unseal(sealed, keys.secret, environment.get(PASSPHRASE, ""))
    except CannotOpen:
        remedy = "restore the key file"
        if sealed.salt is not None:
            remedy = f"set {PASSPHRASE} to the right passphrase"
        raise ProfileError(
            f"The credentials {path} were not sealed with this profile's key"
            f"{' and this passphrase' * (sealed.salt is not None)}, or were changed: {remedy}, "
            "or delete them and sign in again."
        ) from None


def save_token(
    folder: Path, name: str, token: str, environment: Mapping[str, str] = os.environ
) -> None:
    sealed = seal(token, user_key(folder, name, environment).secret)
    _write(folder / "credentials" / f"{_checked(name)}.json", Credentials(sealed))


def user_key(folder: Path, name: str, environment: Mapping[str, str] = os.environ) -> KeyPair:
    """Returns the key pair of a profile; makes it the first time. Raises ProfileError."""
    try:
        return key_files.open_key(_key_file(folder, name), environment.get(PASSPHRASE, ""))
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None


def key_in_use(name: str, environment: Mapping[str, str] = os.environ) -> KeyPair:
    """Returns the same, and warns of a passphrase that does not protect it: `NotSealed`."""
    folder = home(environment)
    keys = user_key(folder, name, environment)
    path = _key_file(folder, name)
    if environment.get(PASSPHRASE) and not key_files.is_sealed(path):
        sentence = (
            f"{path} is not sealed with {PASSPHRASE}, which was set later: `manta token rotate` "
            "seals it, and so does signing in again."
        )
        warnings.warn(NotSealed(sentence), stacklevel=3)
    return keys


def _seal_key(folder: Path, name: str, environment: Mapping[str, str]) -> None:
    try:
        key_files.seal_file(_key_file(folder, name), environment.get(PASSPHRASE, ""))
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None


def _key_file(folder: Path, name: str) -> Path:
    return folder / "keys" / f"{_checked(name)}.key"


def _write(path: Path, content: Profile | Credentials | _Config) -> None:
    text = msgspec.json.format(msgspec.json.encode(content)).decode()
    try:
        write_private(path, text + "\n", replace=True)
    except KeyFileError as error:
        raise ProfileError(f"{error}.") from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(checks.name("The profile", name)):
        raise InvalidArgument(
            f"The profile's name is {checks.shown(name)}: "
            "give letters, digits, dots, dashes and underscores."
        )
    return name
