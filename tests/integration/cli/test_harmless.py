"""What others named is shown harmless by every command: nothing acts on the terminal, no line is
forged. The manager here answers whatever it is asked, and names everything as an attacker would."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manta.apis import errors
from manta.apis.user_api import UserAPI
from manta.audit.records import Record
from manta.cli.commands import manager, run, up
from manta.cli.local import manager as local_manager
from manta.cli.local import up_state
from manta.cli.main import cli, main
from manta.console.exit_codes import Exit
from manta.manager.audit import log_of, signing_seed
from manta.manager.home import Home, ManagerFile
from manta.protocol.codes import Code
from manta.transports.security.keys import KeyPair, write_private
from tests.support.hostile import (
    EVIL,
    EVIL_KEY,
    KEY,
    MARK,
    Manager,
    answer,
    assert_harmless,
    leaves,
    token,
)

SWARM = """
from manta import Module, Swarm, Task

class Small(Swarm):
    def __init__(self):
        super().__init__()
        self.only = Task(Module("def main(): pass", name="only"))
"""

OF_MANAGER = {
    "check": ["--cluster", "c", "swarm.py"],
    "deploy": ["--cluster", "c", "--follow", "swarm.py"],
    "ps": [],
    "explain": ["s"],
    "stack": ["s.only"],
    "logs": ["s", "--times"],
    "results": ["s"],
    "globals": ["s"],
    "metrics": ["s"],
    "plot": ["s"],
    "compare": ["s", "t"],
    "stop": ["s"],
    "pause": ["s"],
    "resume": ["s"],
    "rm": ["s"],
    "pull": ["s", "pulled"],
    "replay": ["s"],
    "module list": [],
    "module push": ["swarm.py"],
    "module rm": ["m"],
    "module share": ["m", "--cluster", "c"],
    "module show": ["m"],
    "module unshare": ["m", "--cluster", "c"],
    "quota set": ["clusters", "5", "--user", "u"],
    "quota show": ["--swarm", "s"],
    "cluster create": ["c"],
    "cluster list": [],
    "cluster rm": ["c", "--yes"],
    "cluster show": ["c"],
    "cluster start": ["c"],
    "cluster stop": ["c"],
    "node drain": ["n"],
    "node links": ["n"],
    "node list": ["c"],
    "node rm": ["n", "--yes"],
    "node show": ["n"],
    "node stop": ["n"],
    "node token": ["c"],
    "user add": ["a@example.org", "--password-stdin"],
    "user list": [],
    "user passwd": ["--password-stdin"],
    "user rm": ["u"],
    "user show": [],
    "role create": ["r", "swarm:read"],
    "role grant": ["u", "r", "--cluster", "c"],
    "role list": [],
    "role revoke": ["u", "--cluster", "c"],
    "role rm": ["r"],
    "sign-in": ["--email", "a@example.org", "--password-stdin"],
    "sign-out": [],
    "token create": [],
    "token revoke": ["u", "--yes"],
    "token rotate": [],
    "token use": [],
    "tree": [],
}
"""Command -> its arguments: those that ask a manager."""
OF_THIS_MACHINE = {
    "run": ["swarm.py"],
    "up": [],
    "new": [f"folder-{EVIL}".replace("\0", "")],
    "token key": [],
    "token show": [],
    "whoami": [],
    "config list": [],
    "config rm": ["other", "--yes"],
    "config set": ["port", EVIL],
    "config show": ["--origin"],
    "config use": ["default"],
    "completion": ["bash"],
    "manager audit export": ["--format", "csv"],
    "manager audit verify": [],
    "manager backup": ["file"],
    "manager reset-password": ["--email", EVIL],
    "manager restore": ["file"],
    "manager start": ["--background"],
    "manager status": [],
    "manager stop": [],
    "manager verify": [],
    "data partition": ["evil.csv", "--nodes", "1", "--iid"],
    "mesh run": ["swarm.py"],
    "mesh key": ["folder/key"],
    "mesh status": ["localhost:1"],
}
SILENT = {
    "pull", "role rm", "module rm", "user passwd", "token create", "token rotate", "sign-out",
    "config use", "config rm", "completion", "token key", "manager stop", "manager backup",
    "manager reset-password", "manager audit verify", "mesh key",
}  # fmt: skip
"""Commands that print nothing that others named."""


def test_every_command_is_among_them() -> None:
    assert {*OF_MANAGER, *OF_THIS_MACHINE} == set(leaves(cli))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user whose profile holds what a manager told."""
    for name in list(os.environ):
        if name.startswith("MANTA_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("MANTA_HOME", str(home))
    profile = {"host": "localhost", "port": 1, "server_key": KEY}
    for name in ("default", "other"):
        write_private(home / "profiles" / f"{name}.json", json.dumps({**profile, "email": EVIL}))
    (tmp_path / "swarm.py").write_text(SWARM)
    monkeypatch.chdir(tmp_path)
    return home


@pytest.fixture
def printed(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, bytes]]:
    """Runs a command; returns its exit code and all that it printed."""

    def run_(*words: str, stdin: str = "correct horse battery\n") -> tuple[int, bytes]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main(list(words))
        out, err = capfdbinary.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return code, out + err

    return run_


Printed = Callable[..., tuple[int, bytes]]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(monkeypatch)


@pytest.mark.parametrize("command", OF_MANAGER)
def test_a_command_shows_what_others_named_harmless(
    command: str, hostile: Manager, printed: Printed
) -> None:
    stdin = token() if command == "token use" else "correct horse battery\n" * 2
    code, out = printed(*command.split(), *OF_MANAGER[command], stdin=stdin)
    assert code in (Exit.OK, Exit.SWARM_FAILED, Exit.UNPLACEABLE), out
    assert_harmless(out)
    assert (MARK.encode() in out) is (command not in SILENT), out


@pytest.mark.parametrize("command", OF_MANAGER)
def test_a_command_shows_even_ids_harmless(
    command: str, hostile: Manager, printed: Printed
) -> None:
    hostile.id = EVIL
    stdin = token() if command == "token use" else "correct horse battery\n" * 2
    _, out = printed(*command.split(), *OF_MANAGER[command], stdin=stdin)
    assert_harmless(out)


@pytest.mark.parametrize("command", [c for c in OF_MANAGER if c != "token use"])
def test_a_command_escapes_in_json_what_others_named(
    command: str, hostile: Manager, printed: Printed
) -> None:
    _, out = printed(
        *command.split(), *OF_MANAGER[command], "--json", stdin="correct horse battery\n" * 2
    )
    assert_harmless(out)


@pytest.mark.parametrize("command", OF_MANAGER)
def test_a_command_shows_what_a_manager_refuses_harmless(
    command: str, hostile: Manager, printed: Printed
) -> None:
    hostile.refusal = errors.refusal(Code.INVALID, f"No: {EVIL}", {"problems": (EVIL,)})
    stdin = token() if command == "token use" else "correct horse battery\n" * 2
    code, out = printed(*command.split(), *OF_MANAGER[command], stdin=stdin)
    assert code != 0
    assert MARK.encode() in out
    assert_harmless(out)


@pytest.mark.parametrize(
    "words",
    [
        ["logs", "s", "--follow"],
        ["metrics", "s", "--follow"],
        ["metrics", "s", "--csv"],
        ["results", "s", "--all"],
        ["results", "s", "--tag", "t", "--wait"],
        ["ps", "--cluster", "c"],
        ["node", "list", "c", "--profile", "default"],
        ["tree", "--node", "n"],
        ["replay", "s", "--speed", "1000"],
    ],
)
def test_so_do_its_other_forms(words: list[str], hostile: Manager, printed: Printed) -> None:
    _, out = printed(*words)
    assert MARK.encode() in out
    assert_harmless(out)


def test_what_is_asked_before_it_is_done_is_harmless(hostile: Manager, printed: Printed) -> None:
    _, out = printed("results", "s", "--delete", stdin="y\n")
    assert b"Delete all results of swarm" in out
    assert_harmless(out)


def test_only_raw_logs_are_raw(hostile: Manager, printed: Printed) -> None:
    _, out = printed("logs", "s", "--raw")
    assert EVIL.encode() in out
    (before, *_) = out.partition(EVIL.encode() + b"\n")
    assert_harmless(before)  # who wrote it is not raw


def test_what_was_pulled_is_replayed_harmless(hostile: Manager, printed: Printed) -> None:
    assert printed("pull", "s", "pulled")[0] == 0
    for words in (["replay", "pulled"], ["pull", "--verify", "pulled"]):
        code, out = printed(*words)
        assert code == 0, out
        assert_harmless(out)
    Path("pulled", f"x{EVIL}".replace("\0", "")).write_text("")
    code, out = printed("pull", "--verify", "pulled")
    assert (code, MARK.encode() in out) == (Exit.LOCAL, True)
    assert_harmless(out)


@pytest.mark.parametrize("words", [[EVIL], ["ps", EVIL], ["logs", f"--{EVIL}"], ["run", EVIL]])
def test_wrong_words_are_told_harmless(words: list[str], printed: Printed) -> None:
    code, out = printed(*words)
    assert code not in (Exit.OK, Exit.INTERNAL), out
    assert MARK.encode() in out
    assert_harmless(out)


class HostileCluster:
    """In place of a manager and nodes of this machine: their logs are what an attacker wrote."""

    aliases = (EVIL,)
    folder = Path(EVIL)
    user_port = 1

    def __init__(self, *_: Any, **__: Any) -> None:
        self.children = self.dead = [self]
        self.manager_keys = KeyPair.generate()

    def describe_end(self) -> str:
        return f"The process of {EVIL} ended. Its last lines:\n  {EVIL}"

    def start(self) -> None:
        pass

    def stop(self, **_: Any) -> None:
        pass

    def wait_for_nodes(self, *_: Any) -> None:
        pass

    def watch(self, died: Callable[[Any], None]) -> None:
        died(self)

    def connect(self) -> UserAPI:
        return UserAPI()


class HostileRun:
    """In place of peers of a mesh: they print what an attacker wrote."""

    def __init__(self, *arguments: Any, **_: Any) -> None:
        *_others, say = arguments
        say(EVIL.replace("\n", " "), EVIL.replace("\n", " "))

    def wait(self) -> int:
        return 0


HOSTILE_STATUS = {
    "id": EVIL,
    "view": {"token": EVIL, "rank": 0, "members": [[EVIL, EVIL]], "neighbors": []},
    "peers": [{"id": EVIL, "name": EVIL, "state": EVIL, "addresses": [EVIL], "link": EVIL}],
}


FOUND = ManagerFile(1, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, 0.0)


@pytest.fixture
def hostile_machine(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """What this machine's own files and processes tell, all of it hostile."""
    from manta.manager import backup

    write_private(home / "credentials" / "default.json", json.dumps({"token": token(EVIL_KEY)}))
    found = up_state.Up(1, EVIL, EVIL, 1, EVIL, (EVIL,), EVIL)
    monkeypatch.setattr(up_state, "running", lambda _: found)
    monkeypatch.setattr(run, "LocalCluster", HostileCluster)
    monkeypatch.setattr(up, "LocalCluster", HostileCluster)
    monkeypatch.setattr(manager, "running", lambda _: None)
    line = EVIL.replace("\n", " ")  # the log has a line for each entry
    started = local_manager.Started(FOUND, home, f"first\n{line}", line)
    monkeypatch.setattr(manager, "start_in_background", lambda *_: started)
    made = answer(backup.Manifest)
    restored, verdict = (
        backup.Restored(made, home, [EVIL, EVIL]),
        backup.Verdict(home, 1, 1, [EVIL]),
    )
    place = Home(home / "manager")
    write_private(place.signing_key, "11" * 32 + "\n")
    log = log_of(place, signing_seed(place))
    log.record(Record(1.0, EVIL, f"={EVIL}", EVIL, {EVIL: EVIL}))
    log.close()
    monkeypatch.setattr(backup, "backup", lambda *_: made)
    monkeypatch.setattr(backup, "restore", lambda *_, **__: restored)
    monkeypatch.setattr(backup, "verify_home", lambda _: verdict)
    label = EVIL.replace("\0", "").replace("\n", "").replace("\r", "")
    Path("evil.csv").write_text(f"y\n{label}\n")
    monkeypatch.setattr("manta.mesh.run.Run", HostileRun)
    monkeypatch.setattr("manta.mesh.door.ask_status", lambda *_: HOSTILE_STATUS)
    monkeypatch.setenv("MANTA_MESH_SECRET", "secret")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
@pytest.mark.parametrize("command", OF_THIS_MACHINE)
def test_a_command_shows_what_is_on_this_machine_harmless(
    command: str,
    form: list[str],
    hostile: Manager,
    hostile_machine: None,
    printed: Printed,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if command == "manager status":
        monkeypatch.setattr(manager, "running", lambda _: FOUND)
    if command in ("completion", "mesh run") and form:
        pytest.skip("it has no JSON")
    if command == "manager audit export" and form:
        form = ["--format", "jsonl", *form]  # the last one counts
    _, out = printed(*command.split(), *OF_THIS_MACHINE[command], *form)
    assert_harmless(out)
    if not form:
        assert (MARK.encode() in out) is (command not in SILENT), out
