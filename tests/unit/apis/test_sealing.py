"""How tokens lie on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manta.apis.connect import profiles
from manta.apis.errors import ProfileError

TOKEN = "head.claims.signature"
SECRET = {"MANTA_PASSPHRASE": "correct horse"}


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
        ({}, "sealed with a passphrase: set MANTA_PASSPHRASE"),
        ({"MANTA_PASSPHRASE": "wrong"}, "set MANTA_PASSPHRASE to the right passphrase"),
    ],
)
def test_a_passphrase_is_needed_and_must_be_right(
    tmp_path: Path, environment: dict[str, str], message: str
) -> None:
    profiles.save_token(tmp_path, "default", TOKEN, SECRET)
    with pytest.raises(ProfileError, match=message):
        profiles.load_token(tmp_path, "default", environment)


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
