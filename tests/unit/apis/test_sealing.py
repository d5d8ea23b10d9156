"""How tokens and keys lie on the disk."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.pwhash import argon2id

from manta.apis.connect import profiles, sealing
from manta.apis.errors import NotSealed, ProfileError
from manta.protocol.tokens import USER_AUDIENCE, TokenClaims, fingerprint
from manta.transports.errors import KeyFileError
from manta.transports.security.keys import KeyPair

TOKEN = "head.claims.signature"
SECRET = {"MANTA_PASSPHRASE": "correct horse"}
OLD_SECRET = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
OLD_CREDENTIALS = (
    '{"sealed":{"box":"PpefVuahIBeWsGaWzqs/KbI5c3J6wknqO9pikbuIp+kDCy/Caz9UuuH/Y42JGdrKm2wGR1VX'
    'fGZ50Bpi8A==","salt":"91ycxImVuiuiYSNpFkBvKw=="}}'
)
"""As version 0.1.0 stored the token with this secret and that passphrase."""


def file_of(home: Path) -> Path:
    return home / "credentials" / "default.json"


@pytest.mark.parametrize("environment", [{}, SECRET])
def test_a_token_comes_back_and_is_not_readable_in_any_file(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, environment)
    assert profiles.load_token(tmp_path, "default", environment) == TOKEN
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert not any(b"claims" in path.read_bytes() for path in kept)
    assert file_of(tmp_path).stat().st_mode & 0o777 == 0o600


def test_the_same_token_is_sealed_differently_each_time(tmp_path: Path) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, {})
    first = file_of(tmp_path).read_bytes()
    profiles.save_token(tmp_path, "default", TOKEN, {})
    assert file_of(tmp_path).read_bytes() != first


def test_a_plain_file_of_an_older_version_is_read_and_sealed(tmp_path: Path) -> None:
    file_of(tmp_path).parent.mkdir(mode=0o700)
    file_of(tmp_path).write_text(json.dumps({"token": TOKEN}))
    file_of(tmp_path).chmod(0o600)
    assert profiles.load_token(tmp_path, "default", {}) == TOKEN
    assert TOKEN not in file_of(tmp_path).read_text()
    assert profiles.load_token(tmp_path, "default", {}) == TOKEN


def test_without_its_key_it_stays_closed(tmp_path: Path) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, {})
    (tmp_path / "keys" / "default.key").unlink()
    with pytest.raises(ProfileError, match=r"default\.json were not sealed.*restore the key file"):
        profiles.load_token(tmp_path, "default", {})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, r"default\.key is sealed with a passphrase: set MANTA_PASSPHRASE to it"),
        ({"MANTA_PASSPHRASE": "wrong"}, "set MANTA_PASSPHRASE to the right passphrase"),
    ],
)
def test_a_passphrase_is_needed_and_must_be_right(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, SECRET)
    for needs in (profiles.load_token, profiles.user_key):
        with pytest.raises(ProfileError, match=message):
            needs(tmp_path, "default", environment)
    with pytest.raises(ProfileError, match=message):
        profiles.save_token(tmp_path, "default", TOKEN, environment)


def test_with_a_passphrase_the_key_that_signs_in_is_in_no_file(tmp_path: Path) -> None:
    """With the files alone nobody is the user: the key is all that a manager asks for."""
    keys = profiles.user_key(tmp_path, "default", SECRET)
    profiles.save_token(tmp_path, "default", TOKEN, SECRET)
    assert profiles.user_key(tmp_path, "default", SECRET) == keys
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert keys.secret not in path.read_text()
    path = tmp_path / "keys" / "default.key"
    with pytest.raises(KeyFileError):
        KeyPair.load(path)
    assert path.stat().st_mode & 0o777 == 0o600


def remember(home: Path, environment: dict[str, str]) -> None:
    target = profiles.Target("lab", 50052, "default")
    profiles.remember(target, "ada@lab", token_of(), {"MANTA_HOME": str(home), **environment})


def token_of() -> str:
    manager = KeyPair.generate().public
    claims = TokenClaims(fingerprint(manager), "u1", USER_AUDIENCE, 9e9, 1, "1", manager)
    body = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
    return f"e30.{body}.c2ln"


def test_a_key_that_was_not_sealed_is_when_a_token_is_saved_with_a_passphrase(
    tmp_path: Path,
) -> None:
    remember(tmp_path, {})
    keys = profiles.user_key(tmp_path, "default", {})
    remember(tmp_path, SECRET)
    assert keys.secret not in (tmp_path / "keys" / "default.key").read_text()
    assert profiles.user_key(tmp_path, "default", SECRET) == keys
    with pytest.raises(ProfileError, match="set MANTA_PASSPHRASE"):
        profiles.user_key(tmp_path, "default", {})


def test_a_passphrase_given_in_passing_seals_nothing_and_that_is_told(tmp_path: Path) -> None:
    """It may be mistyped, and nobody could open the key again."""
    profiles.save_token(tmp_path, "default", TOKEN, {})
    mistyped = {"MANTA_HOME": str(tmp_path), "MANTA_PASSPHRASE": "correct hoarse"}
    assert profiles.load_token(tmp_path, "default", mistyped) == TOKEN
    with pytest.warns(NotSealed, match=r"default\.key is not sealed with MANTA_PASSPHRASE"):
        profiles.key_in_use("default", mistyped)
    profiles.save_token(tmp_path, "default", TOKEN, mistyped)
    assert profiles.load_token(tmp_path, "default", {}) == TOKEN
    assert profiles.load_token(tmp_path, "default", SECRET) == TOKEN


@pytest.mark.parametrize("environment", [{}, SECRET])
def test_of_a_key_that_is_as_it_should_be_nothing_is_told(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    environment = {"MANTA_HOME": str(tmp_path), **environment}
    profiles.save_token(tmp_path, "default", TOKEN, environment)
    profiles.key_in_use("default", environment)


def test_a_passphrase_is_stretched_once_for_the_token_and_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {"MANTA_HOME": str(tmp_path), **SECRET}
    profiles.save_token(tmp_path, "default", TOKEN, environment)
    sealing._stretched.cache_clear()
    calls: list[object] = []

    def kdf(*args: Any, **kwargs: Any) -> bytes:
        calls.append(args)
        return real(*args, **kwargs)

    real = argon2id.kdf
    monkeypatch.setattr(argon2id, "kdf", kdf)
    assert profiles.load_token(tmp_path, "default", environment) == TOKEN
    profiles.key_in_use("default", environment)
    assert len(calls) == 1


def of_an_earlier_version(home: Path) -> None:
    """It sealed the token, and left the key as it was."""
    KeyPair.from_secret(OLD_SECRET).save(home / "keys" / "default.key")
    file_of(home).parent.mkdir(mode=0o700)
    file_of(home).write_text(OLD_CREDENTIALS)
    file_of(home).chmod(0o600)


def test_what_an_earlier_version_sealed_with_a_passphrase_is_opened(tmp_path: Path) -> None:
    of_an_earlier_version(tmp_path)
    with pytest.raises(ProfileError, match="set MANTA_PASSPHRASE to the right passphrase"):
        profiles.load_token(tmp_path, "default", {})
    assert profiles.load_token(tmp_path, "default", SECRET) == TOKEN
    assert profiles.load_token(tmp_path, "default", SECRET) == TOKEN
    assert OLD_SECRET not in (tmp_path / "keys" / "default.key").read_text()
    assert json.loads(file_of(tmp_path).read_text())["sealed"]["salt"] is None


@pytest.mark.parametrize("wrong", ["correct hoarse", "correct horse ", "x"])
def test_a_wrong_passphrase_locks_nobody_out_of_what_an_earlier_version_sealed(
    tmp_path: Path, wrong: str
) -> None:
    of_an_earlier_version(tmp_path)
    for _ in range(2):
        with pytest.raises(ProfileError, match="set MANTA_PASSPHRASE to the right passphrase"):
            profiles.load_token(tmp_path, "default", {"MANTA_PASSPHRASE": wrong})
    assert profiles.load_token(tmp_path, "default", SECRET) == TOKEN
    assert profiles.user_key(tmp_path, "default", SECRET).secret == OLD_SECRET


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("sealed = {", "sealed = [", 1),
        lambda text: text.replace('"salt":"', '"salt":"AAAA', 1),
        lambda text: text.replace('"box":"', '"box":"AAAA', 1),
        lambda text: text.replace("public = ", "public = x", 1),
        lambda text: text.partition("sealed")[0],
    ],
)
def test_a_sealed_key_that_was_changed_is_one_sentence(tmp_path: Path, change) -> None:
    profiles.user_key(tmp_path, "default", SECRET)
    path = tmp_path / "keys" / "default.key"
    path.write_text(change(path.read_text()))
    with pytest.raises(ProfileError, match=r"default\.key .*changed|default\.key .*damaged"):
        profiles.user_key(tmp_path, "default", SECRET)


@pytest.mark.parametrize("content", [{"sealed": {"box": ""}}, {"sealed": {"box": "AAAA"}}, {}])
def test_damaged_credentials_are_named(tmp_path: Path, content: object) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, {})
    file_of(tmp_path).write_text(json.dumps(content))
    with pytest.raises(ProfileError, match=r"default\.json.*sign in again"):
        profiles.load_token(tmp_path, "default", {})


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, {})
    found = json.loads(file_of(tmp_path).read_text())
    box = found["sealed"]["box"]
    found["sealed"]["box"] = box[:40] + ("A" if box[40] != "A" else "B") + box[41:]
    file_of(tmp_path).write_text(json.dumps(found))
    with pytest.raises(ProfileError, match="or were changed"):
        profiles.load_token(tmp_path, "default", {})
