"""Whom to talk to and as whom: arguments, environment, and what lies under `~/.manta`.

    profiles/NAME.json      host, port and the manager's public key
    credentials/NAME.json   the token, sealed (`sealing.py`), mode 0600
    keys/NAME.key           the key pair that the token is bound to, mode 0600

`MANTA_HOME` moves the folder. What is said wins in this order: argument, environment
(`MANTA_HOST`, `MANTA_PORT`, `MANTA_TOKEN`), profile, default.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from manta.apis import checks
from manta.apis.errors import InvalidArgument, ProfileError, TokenRefused
from manta.apis.sealing import CannotOpen, Sealed, seal, unseal
from manta.protocol.codes import Code
from manta.protocol.tokens import USER_AUDIENCE, UnreadableToken, peek
from manta.transports.errors import KeyFileError, LocalTransportError
from manta.transports.keys import KeyPair, check_key, read_private, write_private

if TYPE_CHECKING:
    from manta.protocol.tokens import TokenClaims

DEFAULT = "default"
DEFAULT_HOST = "localhost"
DEFAULT_PORT = 50052
PASSPHRASE = "MANTA_PASSPHRASE"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    host: str | None = None
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    server_key: str | None = None
    email: str | None = None


class Credentials(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One of the two; `token` is how older versions kept it."""

    sealed: Sealed | None = None
    token: str | None = None


class Target(msgspec.Struct, frozen=True):
    """A manager and an identity. `server_key` is None when nothing pins it yet."""

    host: str
    port: int
    profile: str
    token: str | None = None
    server_key: str | None = None

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


def home(environment: Mapping[str, str] = os.environ) -> Path:
    return Path(environment.get("MANTA_HOME") or Path("~/.manta").expanduser()).absolute()


def resolve(
    token: str | None = None,
    host: str | None = None,
    port: int | None = None,
    profile: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Target:
    """Put together what was said. Raises InvalidArgument, ProfileError, TokenRefused."""
    folder = home(environment)
    name = _checked(profile or DEFAULT)
    saved = load_profile(folder, name, required=profile is not None)
    host = host or environment.get("MANTA_HOST") or saved.host or DEFAULT_HOST
    if not checks.name("host", host).isascii() or "/" in host or " " in host:
        raise InvalidArgument(f"host is {checks.shown(host)}: give a name or an address.")
    if port is None and (text := environment.get("MANTA_PORT")):
        if not text.isdecimal():
            raise InvalidArgument(f"MANTA_PORT is {text!r}: set it to a number, or unset it.")
        port = int(text)
    if port is None:
        port = saved.port or DEFAULT_PORT
    checks.integer("port", port, 1, 65535)
    token = token or environment.get("MANTA_TOKEN") or load_token(folder, name, environment)
    server_key = None
    if token:
        server_key = claims(token).manager_key
    elif (host, port) == (saved.host, saved.port):
        server_key = saved.server_key
    return Target(host, port, name, token, server_key or local_server_key(folder))


def for_sign_in(
    host: str | None,
    port: int | None,
    profile: str | None,
    server_key: str | None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[Target, KeyPair]:
    """Whom to sign in to, with which key: no token yet, and the profile may be new."""
    folder, name = home(environment), _checked(profile or DEFAULT)
    if profile is not None and not (folder / "profiles" / f"{name}.json").exists():
        profile = None
    found = resolve(None, host, port, profile, {**environment, "MANTA_TOKEN": ""})
    if server_key is not None:
        try:
            check_key(server_key, "server_key")
        except LocalTransportError as error:
            raise InvalidArgument(f"{error}.") from None
    key = server_key or found.server_key
    return Target(found.host, found.port, name, None, key), user_key(folder, name)


def remember(
    target: Target, email: str, token: str, environment: Mapping[str, str] = os.environ
) -> None:
    """Keep a sign-in under the target's profile."""
    folder = home(environment)
    save_profile(
        folder, target.profile, Profile(target.host, target.port, claims(token).manager_key, email)
    )
    save_token(folder, target.profile, token, environment)


def forget(target: Target, environment: Mapping[str, str] = os.environ) -> None:
    """The token and the key of a sign-in that is over; how to reach the manager stays."""
    folder = home(environment)
    for path in (
        folder / "credentials" / f"{target.profile}.json",
        folder / "keys" / f"{target.profile}.key",
    ):
        path.unlink(missing_ok=True)


def claims(token: str) -> TokenClaims:
    """What a user's token says. Raises TokenRefused for what is none."""
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


def local_server_key(folder: Path) -> str | None:
    """The key of a manager that runs under this home, so that its first user need not copy it."""
    try:
        found = msgspec.json.decode((folder / "manager" / "manager.json").read_bytes(), type=_Local)
    except (OSError, ValueError):
        return None  # none runs here
    return found.public_key


class _Local(msgspec.Struct):
    public_key: str


def load_profile(folder: Path, name: str, *, required: bool) -> Profile:
    path = folder / "profiles" / f"{name}.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except FileNotFoundError:
        if not required:
            return Profile()
        there = sorted(file.stem for file in path.parent.glob("*.json"))
        raise ProfileError(
            f"There is no profile {name!r} in {path.parent}: "
            f"there {'are ' + ', '.join(there) if there else 'is none yet'}. "
            f"`manta sign-in --profile {name}` makes it."
        ) from None
    except ValueError as error:
        raise ProfileError(
            f"The profile {path} is not valid ({error}): mend or delete it."
        ) from None
    except OSError as error:
        raise ProfileError(f"The profile {path} can't be read: {error.strerror}.") from None


def save_profile(folder: Path, name: str, profile: Profile) -> None:
    _write(folder / "profiles" / f"{_checked(name)}.json", profile)


def load_token(folder: Path, name: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """None when there is none. One that lies there unsealed is sealed. Raises ProfileError."""
    path = folder / "credentials" / f"{name}.json"
    if not path.exists():
        return None
    try:
        found = msgspec.json.decode(read_private(path), type=Credentials)
        if found.sealed is None and found.token is None:
            raise ValueError("there is no token in it")
    except KeyFileError as error:
        raise ProfileError(str(error)) from None
    except ValueError as error:
        raise ProfileError(
            f"The credentials {path} are damaged ({error}): delete them and sign in again."
        ) from None
    if found.sealed is None:
        assert found.token is not None
        save_token(folder, name, found.token, environment)
        return found.token
    return _unsealed(found.sealed, path, user_key(folder, name), environment)


def _unsealed(sealed: Sealed, path: Path, keys: KeyPair, environment: Mapping[str, str]) -> str:
    passphrase = environment.get(PASSPHRASE, "")
    if sealed.salt is not None and not passphrase:
        raise ProfileError(
            f"The credentials {path} are sealed with a passphrase: set {PASSPHRASE} to it, "
            "or delete them and sign in again."
        )
    try:
        return unseal(sealed, keys.secret, passphrase)
    except CannotOpen:
        remedy = "restore the key file"
        if sealed.salt is not None:
            remedy = f"set {PASSPHRASE} to the right passphrase"
        raise ProfileError(
            f"The credentials {path} were sealed with something else than this profile's key"
            f"{' and this passphrase' * (sealed.salt is not None)}, or were changed: {remedy}, "
            "or delete them and sign in again."
        ) from None


def save_token(
    folder: Path, name: str, token: str, environment: Mapping[str, str] = os.environ
) -> None:
    keys = user_key(folder, name)
    sealed = seal(token, keys.secret, environment.get(PASSPHRASE, ""))
    _write(folder / "credentials" / f"{_checked(name)}.json", Credentials(sealed))


def user_key(folder: Path, name: str) -> KeyPair:
    """The key pair of a profile, made when it is first asked for. Raises ProfileError."""
    path = folder / "keys" / f"{_checked(name)}.key"
    try:
        if not path.exists():
            try:
                KeyPair.generate().save(path)
            except KeyFileError:
                if not path.exists():  # else another process was faster
                    raise
        return KeyPair.load(path)
    except KeyFileError as error:
        raise ProfileError(str(error)) from None


def _write(path: Path, content: Profile | Credentials) -> None:
    text = msgspec.json.format(msgspec.json.encode(content)).decode()
    try:
        write_private(path, text + "\n", replace=True)
    except KeyFileError as error:
        raise ProfileError(str(error)) from None


def _checked(name: str) -> str:
    if not _NAME.fullmatch(checks.name("The profile", name)):
        raise InvalidArgument(
            f"The profile's name is {checks.shown(name)}: "
            "give letters, digits, dots, dashes and underscores."
        )
    return name
