"""Key pairs, and the files that nobody else may read."""

from __future__ import annotations

import os
import stat

import pytest
import zmq

from manta.transports.errors import KeyFileError, LocalTransportError
from manta.transports.security.keys import KeyPair, check_key


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys" / "node.key"


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_pair_is_saved_and_loaded(path):
    pair = KeyPair.generate()
    pair.save(path)
    assert KeyPair.load(path) == pair
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert os.listdir(path.parent) == ["node.key"]


def test_the_modes_do_not_depend_on_the_umask(path):
    before = os.umask(0)
    try:
        KeyPair.generate().save(path)
    finally:
        os.umask(before)
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)


def test_the_secret_is_in_no_repr():
    pair = KeyPair.generate()
    assert pair.secret not in f"{pair!r} {pair} {[pair]}"
    assert pair.public in repr(pair)


def test_each_pair_is_its_own_and_the_secret_gives_the_public_half():
    pair = KeyPair.generate()
    assert KeyPair.generate() != pair
    assert KeyPair.from_secret(pair.secret) == pair


@pytest.mark.parametrize("bits", [0o004, 0o040, 0o020, 0o002])
def test_a_file_that_others_can_touch_is_refused(path, bits):
    KeyPair.generate().save(path)
    os.chmod(path, 0o600 | bits)
    with pytest.raises(KeyFileError, match=f"{path} is open to other users.*chmod 600 {path}"):
        KeyPair.load(path)


@pytest.mark.parametrize("bits", [0o050, 0o005, 0o030, 0o001])
def test_a_folder_that_others_can_enter_is_refused(path, bits):
    pair = KeyPair.generate()
    pair.save(path)
    os.chmod(path.parent, 0o700 | bits)
    remedy = f"{path.parent} is open to other users.*chmod 700 {path.parent}"
    with pytest.raises(KeyFileError, match=remedy):
        KeyPair.load(path)
    with pytest.raises(KeyFileError, match=remedy):
        pair.save(path.parent / "another.key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_file_is_refused(path):
    KeyPair.generate().save(path)
    os.chown(path, 12345, -1)
    with pytest.raises(KeyFileError, match=f"belongs to user id 12345.*chown 0 {path}"):
        KeyPair.load(path)


def test_a_missing_file_is_one_clear_sentence(path):
    with pytest.raises(KeyFileError, match=f"no folder {path.parent}: enrol or sign in first"):
        KeyPair.load(path)
    path.parent.mkdir(mode=0o700)
    with pytest.raises(KeyFileError, match=f"no key file {path}: enrol or sign in first"):
        KeyPair.load(path)


def test_a_key_is_not_overwritten_unless_asked_to(path):
    old, new = KeyPair.generate(), KeyPair.generate()
    old.save(path)
    with pytest.raises(KeyFileError, match=f"{path} exists already"):
        new.save(path)
    assert KeyPair.load(path) == old
    new.save(path, replace=True)
    assert KeyPair.load(path) == new
    assert os.listdir(path.parent) == ["node.key"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no key",
        "public = x\nsecret = y\n",
        b"\xff\xfe",
        "public = {public}\nsecret = {other}\n",
    ],
    ids=["empty", "text", "short", "binary", "halves of two"],
)
def test_a_damaged_file_is_refused_and_not_quoted(path, text):
    pair, other = KeyPair.generate(), KeyPair.generate()
    pair.save(path)
    if isinstance(text, str):
        text = text.format(public=pair.public, other=other.secret).encode()
    path.write_bytes(text)
    with pytest.raises(KeyFileError, match=f"{path} is .*damaged") as caught:
        KeyPair.load(path)
    assert other.secret not in str(caught.value)


def test_what_is_not_a_file_is_refused(path):
    path.mkdir(parents=True, mode=0o700)
    os.chmod(path.parent, 0o700)
    with pytest.raises(KeyFileError, match="is not a file"):
        KeyPair.load(path)
    os.rmdir(path)
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileError, match="is not a file"):
        KeyPair.load(path)


@pytest.mark.parametrize("key", ["", "x" * 39, "x" * 41, "~" * 40, "x" * 39 + "\n"])
def test_what_is_no_key_is_refused_and_not_quoted(key):
    with pytest.raises(LocalTransportError, match="is not a CURVE key"):
        check_key(key)
    with pytest.raises(LocalTransportError):
        KeyPair(key, key)


def test_no_command_takes_a_new_key_for_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [zmq.curve_keypair() for _ in range(3)]
    while pairs[2][0].startswith(b"-"):
        pairs[2] = zmq.curve_keypair()
    made = iter([(b"-" + pairs[0][0][1:], pairs[0][1]), (b"-" * 40, pairs[1][1]), pairs[2]])
    monkeypatch.setattr(zmq, "curve_keypair", lambda: next(made))
    assert KeyPair.generate().secret == pairs[2][1].decode()
