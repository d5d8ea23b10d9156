from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manta import UserAPI
from manta.apis.connect import profiles
from manta.apis.errors import InvalidArgument, ProfileError, TokenRefused
from manta.cli.main import main
from manta.console.exit_codes import Exit
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE, fingerprint
from manta.transports.security.keys import KeyPair

KEY = KeyPair.generate().public
OTHER = KeyPair.generate().public
THIRD = KeyPair.generate().public


def token(audience: str = USER_AUDIENCE, key: str = KEY) -> str:
    claims = {
        "iss": fingerprint(key),
        "sub": "u1",
        "aud": audience,
        "exp": 9e9,
        "iat": 1,
        "jti": "1",
        "mgr": key,
    }
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def resolve(tmp_path: Path, *arguments: Any, **environment: str) -> profiles.Target:
    names = ("token", "host", "port", "profile")
    given: dict[str, Any] = dict(zip(names, arguments, strict=False))
    return profiles.resolve(**given, environment={"MANTA_HOME": str(tmp_path), **environment})


def test_defaults(tmp_path: Path) -> None:
    found = resolve(tmp_path)
    assert (found.host, found.port, found.token, found.server_key) == (
        "localhost",
        50052,
        None,
        None,
    )
    assert found.address == "tcp://localhost:50052"
    assert not list(tmp_path.iterdir())


def test_argument_over_environment_over_profile(tmp_path: Path) -> None:
    profiles.save_profile(tmp_path, "default", profiles.Profile("p", 1, OTHER, "a@b"))
    profiles.save_token(tmp_path, "default", token())
    environment = {"MANTA_HOST": "e", "MANTA_PORT": "2", "MANTA_TOKEN": token(key=OTHER)}
    assert resolve(tmp_path).host == "p"
    assert resolve(tmp_path).token == token()
    assert resolve(tmp_path).server_key == KEY
    found = resolve(tmp_path, **environment)
    assert (found.host, found.port, found.server_key) == ("e", 2, OTHER)
    found = resolve(tmp_path, token(), "h", 3, **environment)
    assert (found.host, found.port, found.server_key) == ("h", 3, KEY)


def test_a_profiles_server_key_is_for_its_own_address(tmp_path: Path) -> None:
    profiles.save_profile(tmp_path, "default", profiles.Profile("p", 1, OTHER))
    assert resolve(tmp_path).server_key == OTHER
    assert resolve(tmp_path, None, "elsewhere").server_key is None


def test_the_manager_of_this_machine_is_known(tmp_path: Path) -> None:
    (tmp_path / "manager").mkdir()
    (tmp_path / "manager" / "manager.json").write_text(json.dumps({"public_key": KEY, "pid": 1}))
    assert resolve(tmp_path).server_key == KEY


def test_sign_in_makes_a_profile(tmp_path: Path) -> None:
    environment = {"MANTA_HOME": str(tmp_path), "MANTA_TOKEN": "not one"}
    target, keys = profiles.for_sign_in("h", 5, "lab", KEY, environment)
    assert (target.profile, target.token, target.server_key) == ("lab", None, KEY)
    profiles.remember(target, "a@b", token(), environment)
    found = resolve(tmp_path, None, None, None, "lab")
    assert (found.host, found.port, found.token) == ("h", 5, token())
    assert profiles.user_key(tmp_path, "lab") == keys
    for path in ("credentials/lab.json", "keys/lab.key", "profiles/lab.json"):
        assert (tmp_path / path).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nonsense", "This is not a Manta token"),
        (token(NODE_AUDIENCE), "for nodes, not for users"),
        ("a.b.c", "claims cannot be read"),
    ],
)
def test_bad_tokens(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(TokenRefused, match=message) as refused:
        resolve(tmp_path, given)
    assert refused.value.code


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ((None, "tcp://h"), {}, "host is 'tcp://h'"),
        ((None, "a b"), {}, "host is"),
        ((None, None, 0), {}, "port is 0"),
        ((None, None, "50052"), {}, "port is '50052'"),
        ((), {"MANTA_PORT": "many"}, "MANTA_PORT is 'many'"),
        ((None, None, None, "../x"), {}, "profile's name"),
    ],
)
def test_bad_arguments(
    tmp_path: Path, arguments: tuple, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        resolve(tmp_path, *arguments, **environment)


def test_missing_profile_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="there is none yet"):
        resolve(tmp_path, None, None, None, "lab")
    profiles.save_profile(tmp_path, "home", profiles.Profile("h"))
    with pytest.raises(ProfileError, match=r"there are home.*sign-in --profile lab"):
        resolve(tmp_path, None, None, None, "lab")


def test_damaged_files_are_named(tmp_path: Path) -> None:
    profiles.save_profile(tmp_path, "default", profiles.Profile("h"))
    path = tmp_path / "profiles" / "default.json"
    for content in ("{", '{"port": 0}', '{"unknown": 1}', "\xff", '{"host": ' + "[" * 100_000):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(ProfileError, match=r"default\.json is not valid"):
            resolve(tmp_path)
    path.unlink()
    profiles.save_token(tmp_path, "default", token())
    path = tmp_path / "credentials" / "default.json"
    path.chmod(0o644)
    with pytest.raises(ProfileError, match="open to other users"):
        resolve(tmp_path)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(ProfileError, match="damaged"):
        resolve(tmp_path)


def test_damaged_key(tmp_path: Path) -> None:
    profiles.user_key(tmp_path, "default")
    (tmp_path / "keys" / "default.key").write_text("nonsense")
    with pytest.raises(ProfileError, match="key file"):
        profiles.user_key(tmp_path, "default")


# Who says something: by argument, by variable, in the profile; the first of them is heard.
@pytest.mark.parametrize("says", list(itertools.product([True, False], repeat=3)))
@pytest.mark.parametrize("setting", ["host", "port", "token", "profile"])
def test_an_argument_wins_over_a_variable_this_over_the_profile_this_over_the_default(
    tmp_path: Path, setting: str, says: tuple[bool, bool, bool]
) -> None:
    values: dict[str, tuple[Any, Any, Any, Any]] = {
        "host": ("a", "b", "c", "localhost"),
        "port": (1, 2, 3, 50052),
        "token": (token(key=KEY), token(key=OTHER), token(key=THIRD), None),
        "profile": ("one", "two", "three", "default"),
    }
    for name in ("default", "one", "two", "three"):
        profiles.save_profile(tmp_path, name, profiles.Profile(server_key=OTHER))
    argument, variable, saved, default = values[setting]
    if says[2]:
        if setting == "profile":
            profiles.use_profile(tmp_path, saved)
        elif setting == "token":
            profiles.save_token(tmp_path, "default", saved)
        else:
            profiles.save_profile(tmp_path, "default", profiles.Profile(**{setting: saved}))
    found = profiles.settings(
        **({setting: argument} if says[0] else {}),
        environment={
            "MANTA_HOME": str(tmp_path),
            **({f"MANTA_{setting.upper()}": str(variable)} if says[1] else {}),
        },
    )
    expected = [
        *([(argument, "argument")] if says[0] else []),
        *([(variable, f"MANTA_{setting.upper()}")] if says[1] else []),
        *([(saved, None)] if says[2] else []),
        (default, "default"),
    ][0]
    assert found[setting].value == expected[0]
    if expected[1] is not None:
        assert found[setting].origin == expected[1]
    # A token pins its manager, whatever else is said of it.
    if setting == "token" and any(says):
        assert (
            found["server_key"].value == {argument: KEY, variable: OTHER, saved: THIRD}[expected[0]]
        )


def test_what_is_said_of_one_setting_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    profiles.save_profile(tmp_path, "lab", profiles.Profile("p", 1, OTHER))
    profiles.save_token(tmp_path, "lab", token())
    found = resolve(tmp_path, None, "h", None, "lab", MANTA_PORT="2")
    assert (found.host, found.port, found.token, found.profile) == ("h", 2, token(), "lab")
    found = resolve(tmp_path, None, None, 3, MANTA_HOST="", MANTA_PROFILE="lab", MANTA_TOKEN="")
    assert (found.host, found.port, found.token) == ("p", 3, token())


def folder_for_file(path: Path) -> None:
    path.unlink()
    path.mkdir()


def in_use_by_others(home: Path) -> None:
    profiles.use_profile(home, "default")
    (home / "profiles/in-use").chmod(0o666)


FLAWS: list[tuple[Callable[[Path], object], str, str]] = [
    (
        lambda home: (home / "profiles/default.json").write_text("{"),
        "default.json",
        "correct or del",
    ),
    (
        lambda home: (home / "profiles/default.json").write_bytes(b"\xff"),
        "default.json",
        "correct or",
    ),
    (
        lambda home: folder_for_file(home / "profiles/default.json"),
        "default.json",
        "can't be read: Is a directory",
    ),
    (
        lambda home: (home / "profiles/default.json").write_text('{"host": 3}'),
        "default.json",
        "`$.host`",
    ),
    (lambda home: (home / "profiles/in-use").write_text('{"profile": "x"}'), "'x'", "sign-in"),
    (lambda home: (home / "profiles/in-use").write_text("x"), "in-use", "delete it"),
    (lambda home: (home / "credentials/default.json").chmod(0o644), "default.json", "chmod 600"),
    (lambda home: (home / "credentials/default.json").chmod(0o640), "default.json", "chmod 600"),
    (lambda home: (home / "credentials/default.json").write_text("["), "default.json", "sign in"),
    (
        lambda home: (home / "credentials/default.json").write_bytes(b"\0\xff"),
        "default.json",
        "delete it",
    ),
    (lambda home: (home / "keys/default.key").chmod(0o644), "default.key", "chmod 600"),
    (lambda home: (home / "keys/default.key").write_text("x"), "default.key", "key"),
    (
        lambda home: (home / "keys/default.key").unlink(),
        "credentials/default.json",
        "restore the key file",
    ),
    (lambda home: (home / "keys").chmod(0o755), "keys", "chmod 700"),
    (lambda home: (home / "profiles/default.json").chmod(0o620), "default.json", "chmod go-w"),
    (lambda home: (home / "profiles/default.json").chmod(0o602), "default.json", "chmod go-w"),
    (lambda home: (home / "profiles").chmod(0o770), "profiles", "chmod go-w"),
    (lambda home: (home / "profiles").chmod(0o707), "profiles", "chmod go-w"),
    (lambda home: (home / "credentials").chmod(0o720), "credentials", "chmod go-w"),
    (lambda home: home.chmod(0o777), "home", "chmod go-w"),
    (in_use_by_others, "in-use", "chmod go-w"),
]


@pytest.mark.parametrize(("spoil", "what", "remedy"), FLAWS)
def test_each_flaw_of_a_home_is_one_sentence_in_the_sdk_and_on_the_command_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    what: str,
    remedy: str,
) -> None:
    home = tmp_path / "home"
    for variable in ("MANTA_TOKEN", "MANTA_HOST", "MANTA_PORT", "MANTA_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("MANTA_HOME", str(home))
    profiles.save_profile(home, "default", profiles.Profile("h", 1, KEY))
    profiles.save_token(home, "default", token())
    UserAPI().close()
    spoil(home)
    with pytest.raises(ProfileError) as refused:
        UserAPI()
    said = str(refused.value)
    assert what in said
    assert remedy in said
    assert said.endswith(".")
    assert "\n" not in said
    assert "bytearray" not in said
    with pytest.raises(SystemExit) as ended:
        main(["ps"])
    assert ended.value.code == Exit.LOCAL
    assert capsys.readouterr().err == f"Error: {said}\n"


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_a_managers_key_that_others_could_have_written_is_not_trusted(
    tmp_path: Path, mode: int
) -> None:
    folder = tmp_path / "manager"
    folder.mkdir(mode=0o700)
    path = folder / "manager.json"
    path.write_text(json.dumps({"public_key": KEY}))
    path.chmod(mode)
    with pytest.raises(ProfileError, match="can be changed by other users"):
        resolve(tmp_path)
    path.chmod(0o600)
    folder.chmod(0o720)
    with pytest.raises(ProfileError, match="can be changed by other users"):
        resolve(tmp_path)
    folder.chmod(0o755)
    assert resolve(tmp_path).server_key == KEY


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("what", ["profiles/default.json", "profiles", "."])
def test_another_users_profile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    home = tmp_path / "home"
    profiles.save_profile(home, "default", profiles.Profile("h"))
    os.chown(home / what, 12345, -1)
    with pytest.raises(ProfileError, match="belongs to user id 12345"):
        resolve(home)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o077, 0o777])
def test_a_home_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    home = tmp_path / "above" / "home"
    before = os.umask(umask)
    try:
        profiles.save_profile(home, "default", profiles.Profile("h", 1, KEY))
        profiles.save_token(home, "default", token())
        profiles.change_profile(home, "other", lambda _: profiles.Profile("g"))
        profiles.use_profile(home, "other")
    finally:
        os.umask(before)
    for path in (home.parent, home, *home.rglob("*")):
        if path.name != ".lock":  # which holds nothing
            expected = 0o700 if path.is_dir() else 0o600
            assert path.stat().st_mode & 0o777 == expected, path


def test_a_host_may_name_its_port(tmp_path: Path) -> None:
    found = resolve(tmp_path, None, "[::1]:7")
    assert (found.host, found.port, found.place) == ("::1", 7, "[::1]:7")
    assert found.address == "tcp://[::1]:7"
    assert resolve(tmp_path, None, "[::1]", 7).place == "[::1]:7"
    assert resolve(tmp_path, None, "::1:7").host == "::1:7", "an address of its own"
    assert resolve(tmp_path, MANTA_HOST="a:7").port == 7
    assert resolve(tmp_path, None, None, 8, MANTA_HOST="a:7").port == 8, "what is nearer counts"
    assert resolve(tmp_path, None, "a:7", MANTA_PORT="8").port == 7
    for arguments, environment in (
        ((None, "a:7", 8), {}),
        ((), {"MANTA_HOST": "a:7", "MANTA_PORT": "8"}),
    ):
        with pytest.raises(InvalidArgument, match="names port 7, and port is 8: give one"):
            resolve(tmp_path, *arguments, **environment)
