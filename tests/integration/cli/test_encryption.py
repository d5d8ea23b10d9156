"""What is on the disks of a manager and a node whose owners have given keys, and who have not."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta.manager.backup import restore, verify_file, verify_home
from manta.manager.home import Home
from manta.testing import wait_until
from manta.testing.clusters import RUNNER
from manta.transports.blobs.sealing import HEAD
from tests.support.lab import Lab

pytestmark = pytest.mark.timeout(600)

KEYS = {"manager": "a1" * 32, "node": "b2" * 32}
LARGE = ("large result", "result that stays")
SMALL = ("small result", "global", "state", "large state", "line")
WHAT = (*LARGE, *SMALL)
"""What tasks make, in various ways."""
SWARM = '''
from manta import Module, Swarm, Task

CODE = """
import time
from pathlib import Path
from manta.light import Local, World

def marker(what):
    return ("marked: " + what.replace(" ", "_") + ".").encode()

def main():
    world, local = World(), Local()
    local.set_state("small", marker("state"))
    local.set_state("large", marker("large state") * 10_000)
    assert local.get_state("small") == marker("state")
    assert local.get_state("large") == marker("large state") * 10_000
    print(marker("line").decode(), flush=True)
    world.globals["marked"] = marker("global")
    world.results.add("small", marker("small result"))
    world.results.add("large", marker("large result") * 100_000)
    world.results.add("stays", marker("result that stays") * 100_000)
    while not Path(UNTIL).exists():
        time.sleep(0.1)
"""

class Marked(Swarm):
    def __init__(self, until: str = "") -> None:
        super().__init__(max_iteration=1)
        module = Module(CODE.replace("UNTIL", repr(until)), name="marked")
        self.only = Task(module, collect=["large"])
'''


def marker(what: str) -> bytes:
    return f"marked: {what.replace(' ', '_')}.".encode()


def found_in(folder: Path) -> dict[str, list[Path]]:
    """The files that hold each marker."""
    found: dict[str, list[Path]] = {what: [] for what in WHAT}
    for path in folder.rglob("*"):
        try:
            content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        except FileNotFoundError:
            continue
        for what in WHAT:
            if marker(what) in content:
                found[what].append(path)
    return found


class Place:
    """A manager and a node, whose keys are in the environment and in a file, if there are any."""

    def __init__(self, folder: Path, *, encrypted: bool) -> None:
        self.folder, self.encrypted = folder, encrypted
        self.lab = Lab(folder / "h")
        self.until = folder / "until"
        self.last = ""
        self.key = folder / "keys" / "at-rest.key"

    def node(self, *words: object, token: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "manta.node.command", *map(str, words)],
            env={**os.environ, "MANTA_HOME": str(self.lab.home), "MANTA_NODE_TOKEN": token},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start_manager(
        self, *words: str, key: str = KEYS["manager"]
    ) -> subprocess.CompletedProcess[str]:
        names = ("--node-port", "--user-port", "--bulk-port")
        where = [part for pair in zip(names, self.lab.ports, strict=True) for part in pair]
        environment = {"MANTA_KEY_AT_REST": key} if key else {}
        return self.lab.attempt(
            "manager", "start", "--background", "--host", "127.0.0.1", *where, *words,
            **environment,
        )  # fmt: skip

    def set_up(self) -> None:
        lab = self.lab
        more = ["--encryption-key-from", "env:MANTA_KEY_AT_REST"] if self.encrypted else []
        started = self.start_manager(*more)
        assert started.returncode == 0, started.stderr
        lab.sign_in(started.stdout)
        lab("cluster", "create", "lab")
        self.key.parent.mkdir(mode=0o700)
        self.key.write_text(KEYS["node"])
        self.key.chmod(0o600)
        made = ("--manager-host", "127.0.0.1", "--manager-port", lab.ports[0], "--alias", "n")
        more = ["--encryption-key-from", f"file:{self.key}"] if self.encrypted else []
        same = ("--runner", RUNNER, "--allow-unsandboxed")
        self.node("config", "init", "n", *made, *same, *more)
        token = lab("node", "token", "lab")
        done = self.node("start", "n", "--background", token=token)
        assert done.returncode == 0, done.stderr

    def run(self) -> str:
        """The id of a swarm that has told all that is marked, and still runs; the last one ends."""
        if self.last:
            self.lab.attempt("stop", self.last)
        (self.folder / "swarm.py").write_text(SWARM)
        until = f"until={self.until}"
        sent = self.lab(
            *("deploy", "--cluster", "lab", "--json", self.folder / "swarm.py", "-p", until)
        )
        swarm_id = str(json.loads(sent)["swarm_id"])
        self.last = swarm_id
        wait_until(lambda: len(self.results(swarm_id)) == 3, 60)
        return swarm_id

    def results(self, swarm_id: str) -> list[str]:
        shown = self.lab.attempt("results", swarm_id, "--json").stdout
        return re.findall(r'"tag": ?"(\w+)"', shown)

    def pulls(self, swarm_id: str, folder: Path) -> bool:
        """Whether all of it is there by now."""
        shutil.rmtree(folder, ignore_errors=True)
        done = self.lab.attempt("pull", swarm_id, folder)
        found = found_in(folder)
        return done.returncode == 0 and all(found[what] for what in LARGE)

    @property
    def state(self) -> Path:
        """The node's state folder."""
        [key] = self.lab.home.rglob("node.key")
        return key.parent

    def tear_down(self) -> None:
        self.node("stop", "n")
        self.lab.attempt("manager", "stop")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("e"), encrypted=True)
    try:
        place.set_up()
        yield place
    finally:
        place.tear_down()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Place]:
    """One whose processes a test may end."""
    place = Place(tmp_path, encrypted=True)
    try:
        place.set_up()
        yield place
    finally:
        place.tear_down()


def test_without_keys_all_that_tasks_made_is_on_the_disks(tmp_path: Path) -> None:
    place = Place(tmp_path, encrypted=False)
    try:
        place.set_up()
        place.run()
        found = found_in(place.lab.home)
        node = found_in(place.state)
        assert [what for what in LARGE if not found[what]] == []
        assert [what for what in WHAT if what != "large result" and not node[what]] == []
    finally:
        place.tear_down()


def test_with_keys_nothing_of_it_is(place: Place) -> None:
    swarm_id = place.run()
    found = found_in(place.lab.home)
    database = {place.lab.home / "manager" / name for name in ("manta.db", "manta.db-wal")}
    assert {what: found[what] for what in LARGE if found[what]} == {}
    assert {what: found[what] for what in SMALL if set(found[what]) - database} == {}
    assert {what for what in SMALL if found[what]}  # the database is not encrypted
    pulled = place.folder / "pulled"
    place.lab("pull", swarm_id, pulled)
    found = found_in(pulled)
    assert found["large result"]
    assert found["result that stays"]


def test_a_backup_is_encrypted_as_well_and_is_verified_with_the_key(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run()
    place.lab("manager", "backup", tmp_path / "b.tar", MANTA_KEY_AT_REST=KEYS["manager"])
    assert marker("large result") not in (tmp_path / "b.tar").read_bytes()
    assert verify_file(tmp_path / "b.tar").flaws == []
    home = Home(tmp_path / "home")
    monkeypatch.setenv("MANTA_KEY_AT_REST", KEYS["manager"])
    assert restore(tmp_path / "b.tar", home).flaws == []
    [blob, *_] = home.blobs.glob("*/*.sealed")
    blob.write_bytes(blob.read_bytes()[:-1] + b"0")
    [flaw] = verify_home(home).flaws
    assert flaw == f"{blob} is damaged: its digest is another."
    monkeypatch.delenv("MANTA_KEY_AT_REST")
    [flaw] = verify_home(home).flaws
    assert "Encrypted blobs are not verified: the environment variable MANTA_KEY" in flaw


def test_of_a_swarm_that_is_removed_nothing_can_be_read_with_the_keys_either(place: Place) -> None:
    swarm_id = place.run()
    [held] = place.lab.home.rglob(f"results/{swarm_id}/*/*.sealed")
    recovered = os.open(held, os.O_RDONLY)
    try:
        assert os.pread(recovered, 8, 0) == b"MANTAENC"
        place.lab("stop", swarm_id)
        place.lab("rm", swarm_id)
        wait_until(lambda: os.fstat(recovered).st_nlink == 0, 60)
        assert os.pread(recovered, HEAD, 0) == bytes(HEAD)
    finally:
        os.close(recovered)


def test_without_their_keys_neither_starts_and_nothing_is_lost(own: Place) -> None:
    place, lab = own, own.lab
    swarm_id = place.run()
    aside = place.key.rename(place.folder / "aside.key")  # which ends nothing
    again = place.run()
    lab("stop", again)
    wait_until(lambda: place.results(again), 60)
    place.node("stop", "n")
    gone = place.node("start", "n", "--background")
    aside.rename(place.key)
    place.key.write_text(KEYS["manager"])
    wrong = place.node("start", "n", "--background")
    place.key.write_text(KEYS["node"])
    config = lab.home / "nodes" / "n.toml"
    said = config.read_text()
    config.write_text(said.replace(f'key_from = "file:{place.key}"', ""))
    off = place.node("start", "n", "--background")
    config.write_text(said)
    assert f"there is no key file {place.key}" in gone.stderr
    assert f"the key of file:{place.key} is not the one with which" in wrong.stderr
    assert "is encrypted, and no key is given" in off.stderr
    lab("manager", "stop")
    unset, wrong = place.start_manager(key=""), place.start_manager(key=KEYS["node"])
    assert "the environment variable MANTA_KEY_AT_REST, which is to hold the key" in unset.stderr
    assert "the key of env:MANTA_KEY_AT_REST is not the one with which" in wrong.stderr
    right = place.start_manager()  # with the key from where it was the last time
    assert right.returncode == 0, right.stderr
    right = place.node("start", "n", "--background")
    assert right.returncode == 0, right.stderr
    pulled = place.folder / "pulled"
    wait_until(lambda: place.pulls(swarm_id, pulled), 60)


def test_results_that_stay_are_shredded_by_the_command_as_well(own: Place) -> None:
    place, swarm_id = own, own.run()
    place.lab("stop", swarm_id)
    place.node("stop", "n")
    [held] = place.lab.home.rglob(f"results/{swarm_id}/*/*.sealed")
    recovered = os.open(held, os.O_RDONLY)
    try:
        listed = json.loads(place.node("results", "n", "--json").stdout)
        [told] = [one for one in listed if one["swarm_id"] == swarm_id]
        assert told["values"] == 1
        assert told["bytes"] > len(marker("result that stays")) * 100_000
        assert place.node("results", "n", "--delete", swarm_id).returncode == 0
        assert os.pread(recovered, HEAD, 0) == bytes(HEAD)
    finally:
        os.close(recovered)


def test_a_folder_from_before_stays_readable_and_what_comes_is_encrypted(tmp_path: Path) -> None:
    place = Place(tmp_path, encrypted=False)
    try:
        place.set_up()
        before = place.run()
        plain = {what: set(paths) for what, paths in found_in(place.lab.home).items()}
        place.lab("manager", "stop")
        started = place.start_manager("--encryption-key-from", "env:MANTA_KEY_AT_REST")
        assert started.returncode == 0, started.stderr
        place.lab("pull", before, tmp_path / "pulled")
        assert found_in(tmp_path / "pulled")["large result"]
        after = place.run()
        assert place.results(after)
        now = found_in(place.lab.home / "manager" / "blobs")
        assert set(now["large result"]) <= plain["large result"]
    finally:
        place.tear_down()
