"""What managers and tasks told a node is shown harmless by every command of its operator."""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from manta.console.log_lines import LineFormatter
from manta.console.rotating_file import RotatingFile
from manta.node.cli import cluster as cluster_commands
from manta.node.cli.main import cli, main
from manta.node.daemon import background, orders, units
from manta.node.daemon import cluster as nodes
from manta.node.doctor import configuration
from manta.node.doctor.report import Finding, Level
from manta.node.errors import DaemonEnded, OperatorError
from manta.node.policy.consent import Asked, Consent, Subject
from manta.node.policy.records import AskedRecords, Code, OwnerRecords
from manta.node.state import StateFolder, Status
from manta.node.state.audit import open_log
from manta.protocol.node import Assignment, Instance
from manta.protocol.spec import ModuleSpec
from manta.transports.security.keys import make_private_folder, write_private
from tests.support.hostile import EVIL, MARK, assert_harmless, leaves

CONFIG = """
[identity]
secured_token = "${MANTA_NODE_TOKEN}"
[policy]
file = "policy.toml"
[datasets.mappings]
digits = "/nowhere\\u001b[31m\\u202e"
"""

SUBJECT = Subject(EVIL, EVIL, "0" * 64, EVIL, (EVIL,), EVIL, (EVIL,), (EVIL,))
ASKED = Asked(SUBJECT, 1.0, 1.0, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL, leaves=EVIL, waiting=1)
"""What a manager and a user have a node ask its owner."""

COMMANDS = {
    "approve": ["edge", SUBJECT.id, "--yes"],
    "deny": ["edge", SUBJECT.id],
    "revoke": ["edge"],
    "policy show": ["edge"],
    "policy test": ["edge", "--user", "ada", "--module", "sums"],
    "start": ["edge", "--background"],
    "stop": ["edge"],
    "status": ["edge"],
    "reload": ["edge"],
    "drain": ["edge"],
    "service install": ["edge"],
    "service status": ["edge"],
    "service uninstall": ["edge"],
    "logs": ["edge"],
    "who": ["edge"],
    "results": ["edge"],
    "audit verify": ["edge"],
    "audit export": ["edge"],
    "config init": ["new", "--manager-host", f"h{EVIL}".replace("\0", "")],
    "config show": ["edge"],
    "config validate": ["edge"],
    "config list": [],
    "config edit": ["edge"],
    "config delete": ["edge", "--yes"],
    "cluster start": ["2", "--config", "edge"],
    "cluster stop": [],
    "doctor": ["edge"],
    "completion": ["bash"],
}
NO_JSON = {"completion"}
SILENT = {"stop", "config list", "config show", "config validate", "config edit", "completion"}
SILENT |= {"config delete", "results", "audit verify", "policy test"}
SILENT |= {"service install", "service status", "service uninstall"}
"""Commands that print nothing that others named; `config` prints what the operator wrote."""


def test_every_command_is_among_them() -> None:
    assert set(COMMANDS) == set(leaves(cli))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StateFolder:
    """A node that runs, and has seen a lot."""
    for name in list(os.environ):
        if name.startswith("MANTA_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MANTA_HOME", str(tmp_path))
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    write_private(tmp_path / "nodes" / "edge.toml", CONFIG)
    folder = StateFolder(tmp_path / "state" / "nodes" / "edge")
    make_private_folder(folder.path)
    fields: dict[str, Any] = dict.fromkeys(Status.__struct_fields__, EVIL)
    status = Status(**{**fields, "pid": 1, "since": 0.0, "tasks_running": 1, "tasks_queued": 0})
    folder.write_status(status)
    folder.log_file.write_bytes(EVIL.replace("\n", " ").encode() + b"\n")
    log = open_log(folder.audit, folder.key().secret)
    module = ModuleSpec(EVIL, datasets=(EVIL,))
    instance = Instance(EVIL, EVIL, 0, 0)
    log.began(Assignment(instance, module, EVIL, EVIL, 1, datasets=(EVIL,), user=EVIL), {}, 1.0)
    log.close(2.0)
    write_private(tmp_path / "nodes" / "policy.toml", "[[rule]]\n")
    owner = OwnerRecords(folder.owner)
    owner.write_asked(AskedRecords({SUBJECT.id: ASKED}, {EVIL: (EVIL,)}, 1.0))
    owner.decide(lambda _: (Consent(SUBJECT, True, 1.0, by=EVIL, module=EVIL),))
    owner.keep_code(SUBJECT.digest, Code({EVIL: f"# {EVIL}"}, {EVIL: EVIL}))
    monkeypatch.setattr(StateFolder, "running_pid", lambda _: 1)
    return folder


@pytest.fixture
def printed(
    folder: StateFolder, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., bytes]:
    def run(*words: str) -> bytes:
        monkeypatch.setattr(sys, "stdin", io.StringIO(""))
        with pytest.raises(SystemExit):
            main(list(words))
        out, err = capfdbinary.readouterr()
        return out + err

    return run


def does_not(*_: object) -> NoReturn:
    raise OperatorError(f"The node edge did not do it: {EVIL}")


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_what_others_named_harmless(
    command: str,
    form: list[str],
    folder: StateFolder,
    printed: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    status = folder.read_status()
    assert status is not None
    monkeypatch.setattr(background, "start", lambda *_: status)
    monkeypatch.setattr(background, "ask_to_stop", lambda _: None)
    monkeypatch.setattr(orders, "give", does_not)
    monkeypatch.setattr(units, "runs", lambda: False)
    monkeypatch.setattr(nodes, "check_token", lambda *_: None)
    monkeypatch.setattr(nodes, "running", lambda _: {})
    planned = [("edge", EVIL, 11), ("edge", None, None)]
    monkeypatch.setattr(nodes, "start", lambda _: iter(planned))
    ended = [{"name": EVIL, "error": EVIL}]
    monkeypatch.setattr(nodes, "stop", lambda _: iter(ended))
    findings = [Finding("manager", Level.FAULT, EVIL, EVIL)]
    monkeypatch.setattr(configuration, "examine", lambda *_, **__: iter(findings))
    if command == "config delete":
        monkeypatch.setattr(StateFolder, "running_pid", lambda _: None)
    if command in NO_JSON and form:
        pytest.skip("it has no JSON")
    assert cluster_commands
    out = printed(*command.split(), *COMMANDS[command], *form)
    assert_harmless(out)
    if not form:
        assert (MARK.encode() in out) is (command not in SILENT), out


def test_the_last_words_of_a_daemon_are_harmless(
    printed: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Status:
        raise DaemonEnded(f"The node edge did not start: {EVIL}", 11)

    monkeypatch.setattr(background, "start", fails)
    out = printed("start", "edge", "--background")
    assert MARK.encode() in out
    assert_harmless(out)


def test_an_entry_of_a_log_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    handler = RotatingFile(tmp_path / "log", 1 << 20)
    handler.setFormatter(LineFormatter())
    log = logging.Logger("log")
    log.addHandler(handler)
    log.warning("the task said %s", EVIL)
    try:
        raise ValueError(f"{EVIL}\n2026-01-01 00:00:00,000 ERROR   forged")
    except ValueError:
        log.exception("it failed")
    handler.close()
    written = (tmp_path / "log").read_bytes()
    assert_harmless(written)
    lines = written.decode().splitlines()
    entries = [line for line in lines if line[:4].isdecimal()]
    assert len(entries) == 2
    assert all(line.startswith("    ") for line in lines if line not in entries)
