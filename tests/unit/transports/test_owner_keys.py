"""The owner's key, and that of a folder, which it encrypts."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import secrets
from pathlib import Path

import pytest

from manta.transports.errors import KeyFileError
from manta.transports.security import owner_key
from manta.transports.security.folder_key import NAME, folder_key
from manta.transports.security.owner_key import KeySource

TEXT = "0123456789abcdef" * 4
KEY = bytes.fromhex(TEXT)
OTHER = "f" * 64


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (place := tmp_path / "state").mkdir(mode=0o700)
    return place


@pytest.fixture
def file(folder: Path) -> Path:
    path = folder / "owner.key"
    path.write_text(f"{TEXT}\n")
    path.chmod(0o600)
    return path


def of(folder: Path, source: KeySource | None, *, has_sealed: bool = False) -> bytes | None:
    return folder_key(folder, source, "the setting", lambda: has_sealed)


@pytest.mark.parametrize("text", ["file:/etc/key", "env:OWNER", "keyring:manta:node"])
def test_a_source_is_its_text(text: str) -> None:
    assert str(KeySource.parse(text)) == text


@pytest.mark.parametrize("text", ["", "file:", "/etc/key", TEXT, "files:/etc/key", "file:a\0b"])
def test_what_is_no_source_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match='it must be "file:PATH"') as caught:
        KeySource.parse(text)
    assert TEXT not in str(caught.value)


def test_a_key_in_a_file(file: Path) -> None:
    assert KeySource("file", str(file)).read() == KEY


@pytest.mark.parametrize("bits", [0o004, 0o040, 0o020, 0o002])
def test_a_file_that_others_can_touch_is_refused(file: Path, bits: int) -> None:
    file.chmod(0o600 | bits)
    with pytest.raises(KeyFileError, match=f"open to other users.*chmod 600 {file}"):
        KeySource("file", str(file)).read()


def test_a_file_that_is_not_there(file: Path) -> None:
    with pytest.raises(KeyFileError, match=f"there is no key file {file}.gone"):
        KeySource("file", f"{file}.gone").read()


def test_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNERS_KEY", TEXT)
    assert KeySource("env", "OWNERS_KEY").read() == KEY
    monkeypatch.delenv("OWNERS_KEY")
    with pytest.raises(KeyFileError, match=r"the environment variable OWNERS_KEY.*is not set"):
        KeySource("env", "OWNERS_KEY").read()


@pytest.mark.parametrize("text", ["secret", TEXT[1:], f"{TEXT}0", "g" * 64])
def test_what_is_no_key_is_refused_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("OWNERS_KEY", text)
    with pytest.raises(KeyFileError, match="env:OWNERS_KEY holds no key: write 64") as caught:
        KeySource("env", "OWNERS_KEY").read()
    assert text not in str(caught.value)


def test_a_key_in_the_kernels_keyring() -> None:
    calls = owner_key._CALLS.get(platform.machine())
    if calls is None:
        pytest.skip("no keyring is read on this machine")
    name = f"manta-test-{secrets.token_hex(4)}".encode()
    add_key, process = calls[0] - 1, ctypes.c_long(-2)
    key, trouble = owner_key._call(
        add_key, b"user", name, TEXT.encode(), ctypes.c_size_t(len(TEXT)), process
    )
    if key < 0:
        pytest.skip(f"the kernel keeps no keys here: {os.strerror(trouble)}")
    assert KeySource("keyring", name.decode()).read() == KEY


def test_a_key_that_is_in_no_keyring() -> None:
    if platform.machine() not in owner_key._CALLS:
        pytest.skip("no keyring is read on this machine")
    with pytest.raises(KeyFileError, match="the kernel's keyring gives no key 'no-such'"):
        KeySource("keyring", "no-such").read()


def test_a_folders_key_is_made_once_and_is_in_no_file(folder: Path, file: Path) -> None:
    source = KeySource("file", str(file))
    key = of(folder, source)
    assert key is not None
    assert len(key) == 32
    assert of(folder, source, has_sealed=True) == key
    stored = (folder / NAME).read_bytes()
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600
    assert key not in stored
    assert key.hex().encode() not in stored
    assert TEXT.encode() not in stored


def test_without_a_key_nothing_is_encrypted(folder: Path) -> None:
    assert of(folder, None) is None
    assert not (folder / NAME).exists()


def test_without_the_key_what_is_encrypted_is_not_opened(folder: Path, file: Path) -> None:
    of(folder, KeySource("file", str(file)))
    with pytest.raises(KeyFileError, match=r"is encrypted, and no key is given.*the setting"):
        of(folder, None)


def test_another_key_is_told_at_once_and_changes_nothing(folder: Path, file: Path) -> None:
    source = KeySource("file", str(file))
    key = of(folder, source)
    file.write_text(OTHER)
    with pytest.raises(KeyFileError, match=r"is not the one with which .*give the right key"):
        of(folder, source)
    file.write_text(TEXT)
    assert of(folder, source) == key


def test_a_folders_key_that_is_gone_is_not_made_anew(folder: Path, file: Path) -> None:
    with pytest.raises(KeyFileError, match=f"{NAME} is gone, and nothing.*restore it"):
        of(folder, KeySource("file", str(file)), has_sealed=True)
    assert not (folder / NAME).exists()


def test_each_byte_of_a_folders_key_that_is_changed_is_found(folder: Path, file: Path) -> None:
    source = KeySource("file", str(file))
    of(folder, source)
    path = folder / NAME
    fields = json.loads(path.read_text())
    wrapped = bytes.fromhex(fields["key"])
    for at in range(len(wrapped)):
        changed = wrapped[:at] + bytes([wrapped[at] ^ 1]) + wrapped[at + 1 :]
        path.write_text(json.dumps({**fields, "key": changed.hex()}))
        with pytest.raises(KeyFileError, match=r"or encryption.json there was changed"):
            of(folder, source)
    for text in ("", "{", "[]", "{}", '{"version": 1, "key": "x"}', '{"version": 1, "key": 5}'):
        path.write_text(text)
        with pytest.raises(KeyFileError, match=r"is damaged.*restore it from a backup"):
            of(folder, source)
    path.write_text(json.dumps({**fields, "version": 2}))
    with pytest.raises(KeyFileError, match=r"of version 2.*install a later one"):
        of(folder, source)
