"""A mesh that admits by keys: made, joined and asked with files, and by nobody else."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from zmq.utils import z85

from manta import Mesh
from manta.mesh.door import (
    ASKS_BY_KEY,
    FAILURES,
    HELLO,
    REFUSED,
    NotAdmitted,
    ask_status_by_key,
)
from manta.mesh.errors import JoinFailed
from manta.mesh.settings import KEY, KNOWN, SECRET, Keys
from manta.transports.addresses import split_host
from manta.transports.sealed.noise import Handshake
from manta.transports.security.keys import KeyPair
from tests.integration.mesh.conftest import PATIENCE

pytestmark = pytest.mark.timeout(300)


def manta(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MANTA_MESH")}
    return subprocess.run(
        [sys.executable, "-m", "manta", *map(str, arguments)],
        capture_output=True, text=True, timeout=PATIENCE, env={**kept, **environment},
    )  # fmt: skip


class Ring:
    """Pairs of keys in files, and the list of their public halves."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder = folder
        self.files = [folder / f"key-{number}" / "pair" for number in range(count)]
        made = [manta("mesh", "key", file) for file in self.files]
        self.public = [one.stdout.strip() for one in made]
        self.known = folder / "known"
        self.known.write_text("".join(f"{one} peer {n}\n\n" for n, one in enumerate(self.public)))

    def environment(self, number: int) -> dict[str, str]:
        return {KEY: str(self.files[number]), KNOWN: str(self.known)}

    def keys(self, number: int) -> Keys:
        return Keys.load(self.files[number], self.known)

    def pair(self, number: int) -> KeyPair:
        return KeyPair.load(self.files[number])


@pytest.fixture
def ring(tmp_path: Path) -> Ring:
    return Ring(tmp_path, 3)


def test_a_key_is_made_once_and_its_public_half_shown(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "key"
    first = manta("mesh", "key", file)
    assert first.stdout.strip() == KeyPair.load(file).public
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    again = json.loads(manta("mesh", "key", file, "--json").stdout)
    assert again == {"public": first.stdout.strip(), "file": str(file)}


def test_one_that_is_damaged_is_left_and_told(tmp_path: Path) -> None:
    file = tmp_path / "mine" / "key"
    manta("mesh", "key", file)
    file.write_text("what was it?")
    told = manta("mesh", "key", file)
    assert told.returncode == 11
    assert "is not a key file, or is damaged" in told.stderr
    assert file.read_text() == "what was it?"


def test_any_peer_tells_its_status_to_who_has_a_key_of_the_list(
    ring: Ring, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(SECRET, raising=False)
    for name, value in ring.environment(0).items():
        monkeypatch.setenv(name, value)
    with Mesh.join(name="first", timeout=PATIENCE) as one:
        other = Mesh.join(peers=[one.address], secret=ring.keys(1), name="other", timeout=PATIENCE)
        with other:
            waiting = threading.Thread(target=one.wait, args=(2, PATIENCE))
            waiting.start()
            other.wait(2, PATIENCE)
            waiting.join()
            drawn = tmp_path / "mesh.svg"
            for mesh in (one, other):
                words = ("mesh", "status", mesh.address, "--json", "--svg", drawn)
                asked = manta(*words, **ring.environment(2))
                assert asked.returncode == 0, asked.stderr
                told = json.loads(asked.stdout)
                assert told["id"] == mesh.id
                assert {peer["name"] for peer in told["peers"]} == {"first", "other"}
                assert "other" in drawn.read_text()
            assert "first" in manta("mesh", "status", one.address, **ring.environment(2)).stdout


def test_nobody_else_is_told(ring: Ring, tmp_path: Path) -> None:
    stranger = Ring(tmp_path / "other", 1)
    by_secret = {SECRET: "what others know"}
    foreign = {**stranger.environment(0)}
    trusting = {**stranger.environment(0), KNOWN: str(ring.known)}
    doubting = {**ring.environment(1), KNOWN: str(stranger.known)}
    with Mesh.join(secret=ring.keys(0), timeout=PATIENCE) as mesh:
        for environment, why in (
            (by_secret, "its secret, or what it admits peers by, is another one"),
            (foreign, "its secret, or what it admits peers by, is another one"),
            (trusting, "its secret, or what it admits peers by, is another one"),
            (doubting, f"its key, {ring.public[0]}, is none of those that are known here"),
        ):
            asked = manta("mesh", "status", mesh.address, **environment)
            assert (asked.returncode, asked.stdout) == (11, ""), asked.stderr
            assert why in asked.stderr
        assert mesh.status()["id"] == mesh.id


@pytest.mark.parametrize("secret", ["keys", "words"])
def test_a_mesh_with_a_secret_is_asked_by_that_alone(ring: Ring, secret: str) -> None:
    with Mesh.join(secret="words", timeout=PATIENCE) as mesh:
        if secret == "words":
            assert manta("mesh", "status", mesh.address, **{SECRET: "words"}).returncode == 0
        else:
            asked = manta("mesh", "status", mesh.address, **ring.environment(0))
            assert (asked.returncode, asked.stdout) == (11, "")


def frame(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def handshake(static: str, peer: str) -> Handshake:
    return Handshake(
        initiator=True,
        static=z85.decode(static),
        peer=z85.decode(peer),
        ephemeral=os.urandom(32),
        prologue=HELLO + ASKS_BY_KEY,
    )


def test_who_only_names_a_key_of_the_list_learns_which_key_the_peer_has_and_no_more(
    ring: Ring,
) -> None:
    thief, (claimed, own) = KeyPair.generate(), ring.public[1::-1]
    lies: list[Callable[[], bytes]] = [
        lambda: bytes(48),  # a point of small order
        lambda: os.urandom(48),
        lambda: b"",
        lambda: handshake(thief.secret, own).write(),
    ]
    with Mesh.join(secret=ring.keys(0), timeout=PATIENCE) as mesh:
        host, port = split_host(mesh.address)
        for lie in lies:
            with socket.create_connection((host, port or 0), timeout=PATIENCE) as stream:
                stream.sendall(frame(HELLO + ASKS_BY_KEY + claimed.encode()) + frame(lie()))
                said = b"".join(iter(lambda: stream.recv(4096), b""))
            assert said == frame(own.encode()) + frame(REFUSED)
        assert ask_status_by_key((host, port or 0), ring.pair(1), {own})["id"] == mesh.id
        for _ in range(FAILURES - len(lies)):
            with socket.create_connection((host, port or 0), timeout=PATIENCE) as stream:
                stream.sendall(frame(HELLO + ASKS_BY_KEY + claimed.encode()) + frame(b""))
                assert b"".join(iter(lambda: stream.recv(4096), b"")).endswith(REFUSED)
        with pytest.raises(OSError, match="it admits nobody for now"):
            ask_status_by_key((host, port or 0), ring.pair(1), {own})


@pytest.mark.parametrize("told", [b"", b"\xff" * 40, b"%" * 40, b"short", b"x" * 4096])
def test_who_is_no_peer_is_told_from_one(ring: Ring, told: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            stream, _ = server.accept()
            with stream:
                stream.recv(4096)
                stream.sendall(frame(told))

        serving = threading.Thread(target=serve)
        serving.start()
        known = {*ring.public, "%" * 40}
        with pytest.raises((NotAdmitted, OSError)):
            ask_status_by_key(server.getsockname(), ring.pair(0), known)
        serving.join()


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (lambda ring: ring.files[0].unlink(), "There is no key file .*: `manta mesh key .*` makes"),
        (lambda ring: ring.files[0].chmod(0o644), r"is open to other users \(mode 0644\).*chmod"),
        (lambda ring: ring.files[0].write_bytes(b"\xff"), "is damaged"),
        (lambda ring: ring.known.unlink(), "Who is admitted is not known: .*known: No such file"),
        (lambda ring: ring.known.write_text("\n\n"), "has no key: write the public keys"),
        (lambda ring: ring.known.write_text(f"{ring.public[0]}\nshort"), "known, line 2: the pub"),
        (lambda ring: ring.known.write_bytes(b"\xff\xfe"), "is no text"),
        (lambda ring: ring.known.write_bytes(b"a" * (2 << 20)), "it has more than 1 MiB"),
    ],
)
def test_files_that_are_no_keys_are_told_before_anything_is_done(
    ring: Ring, break_it: Callable[[Ring], object], why: str
) -> None:
    break_it(ring)
    with pytest.raises(JoinFailed, match=why):
        ring.keys(0)
    asked = manta("mesh", "status", "127.0.0.1:1", **ring.environment(0))
    assert asked.returncode == 11
    assert "Traceback" not in asked.stderr


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ((SECRET, KEY), f"{SECRET} and {KEY} are both set"),
        ((SECRET, KNOWN), f"{SECRET} and {KNOWN} are both set"),
        ((KEY,), f"{KEY} is set, and {KNOWN} is not"),
        ((KNOWN,), f"{KNOWN} is set, and {KEY} is not"),
        ((), f"set {SECRET}; or, where it admits by keys, {KEY} and {KNOWN}"),
    ],
)
def test_what_is_set_twice_or_by_half_is_refused(given: tuple[str, ...], why: str) -> None:
    asked = manta("mesh", "status", "127.0.0.1:1", **dict.fromkeys(given, "something"))
    assert asked.returncode == 11
    assert why in " ".join(asked.stderr.split())
