"""Both audit logs by commands: of a real manager and a real node, at work, damaged and restored."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manta.console.exit_codes import Exit
from manta.manager.backup import verify_file
from manta.testing import wait_until
from tests.support.lab import Lab

SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import Local, World

def main():
    rows = Local().get_dataset("table")
    World().results.add("total", float(rows.sum()))
    return len(rows)
"""

class Sums(Swarm):
    def __init__(self) -> None:
        super().__init__()
        self.only = Task(Module(CODE, name="only", datasets=["table"]), datasets=["table"])
'''
PASSWORD = "correct horse battery"


def node(lab: Lab, *words: object, token: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "manta.node.command", *map(str, words)],
        env={**os.environ, "MANTA_HOME": str(lab.home), "MANTA_NODE_TOKEN": token},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def records(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A manager and a node that have run a swarm over a dataset, and are stopped by now."""
    folder = tmp_path_factory.mktemp("a")
    np = pytest.importorskip("numpy")
    np.save(folder / "table.npy", np.arange(6.0))
    (folder / "swarm.py").write_text(SWARM)
    lab = Lab(folder / "h")
    try:
        lab.sign_in(lab.start().stdout)
        lab("user", "add", "ada@example.org", "--password-stdin", said=PASSWORD)
        lab("cluster", "create", "lab")
        made = ("--manager-host", "127.0.0.1", "--manager-port", lab.ports[0], "--id", "alias")
        data = ("--alias", "edge", "--dataset", f"table={folder / 'table.npy'}")
        done = node(lab, "config", "init", "edge", *made, *data, "--allow-unsandboxed")
        assert done.returncode == 0, done.stderr
        done = node(lab, "start", "edge", "--background", token=lab("node", "token", "lab"))
        assert done.returncode == 0, done.stderr
        lab("deploy", "--cluster", "lab", "--follow", folder / "swarm.py")
        lab("results", "Sums")
        wait_until(lambda: "log-head" in node(lab, "audit", "export", "edge").stdout)
        wait_until(lambda: "log-head" in lab("manager", "audit", "export"))
        lab("manager", "backup", folder / "earlier")
        lab("user", "rm", "ada@example.org")
        node(lab, "stop", "edge")
        lab("manager", "stop")
        yield lab
    finally:
        node(lab, "stop", "edge")
        lab.attempt("manager", "stop")


def kept(lab: Lab) -> Path:
    return lab.home / "manager" / "audit"


def test_what_users_did_is_told_and_exported(lab: Lab) -> None:
    verdict = json.loads(lab("manager", "audit", "verify", "--json"))
    assert (verdict["intact"], verdict["faults"], verdict["first"]) == (True, [], 1)
    found = records(lab("manager", "audit", "export"))
    assert [one["number"] for one in found] == [*range(1, verdict["records"] + 1)]
    acts = [one["act"] for one in found if one["who"] == "admin@localhost"]
    expected = ["sign-in", "add-user", "create-cluster", "create-node-token", "send-swarm"]
    assert [act for act in acts if act in expected] == expected
    assert {"read-feed", "start-swarm", "delete-user"} <= set(acts)
    own = [one["act"] for one in found if not one["who"]]
    for act in ("manager-started", "enroll", "log-head", "backup", "manager-stopped"):
        assert act in own
    [sent] = [one for one in found if one["act"] == "send-swarm"]
    assert sent["about"]["swarm"] == "Sums"
    assert len(sent["about"]["modules"][0]["digest"]) == 64
    assert PASSWORD not in lab("manager", "audit", "export")
    between = lab("manager", "audit", "export", "--until", "2020-01-01")
    assert between == ""
    rows = list(csv.DictReader(io.StringIO(lab("manager", "audit", "export", "--format", "csv"))))
    assert [row["act"] for row in rows] == [one["act"] for one in found]
    assert json.loads(rows[0]["about"]) == found[0]["about"]
    assert rows[0]["at"].endswith("+00:00")


def test_what_ran_on_a_node_is_told_with_its_data(lab: Lab) -> None:
    told = node(lab, "audit", "verify", "edge")
    assert told.returncode == 0, told.stdout
    found = records(node(lab, "audit", "export", "edge").stdout)
    [began] = [one for one in found if one["act"] == "attempt-began"]
    path = str(lab.home.parent / "table.npy")
    assert began["who"] == "admin@localhost"
    assert began["about"]["datasets"] == [{"name": "table", "path": path}]
    assert len(began["about"]["digest"]) == 64
    left = [(one["about"]["what"], one["about"].get("tag")) for one in found
            if one["act"] == "value-left"]  # fmt: skip
    assert left == [("result", "total"), ("output", None)]
    [ended] = [one for one in found if one["act"] == "attempt-ended"]
    assert (ended["about"]["status"], ended["about"]["left"]["values"]) == ("FINISHED", 2)
    acts = [one["act"] for one in found]
    assert acts[:2] == ["log-begun", "node-started"]
    assert {"enrolled", "log-head", "node-stopped"} <= set(acts)
    [started] = [one for one in found if one["act"] == "node-started"]
    assert started["about"]["config"]["identity"]["secured_token"] == "***"


def test_each_log_keeps_where_the_other_one_ended(lab: Lab, tmp_path: Path) -> None:
    exported = tmp_path / "manager.jsonl"
    exported.write_text(lab("manager", "audit", "export"))
    done = node(lab, "audit", "verify", "edge", "--anchors", exported, "--json")
    verdict = json.loads(done.stdout)
    assert (verdict["intact"], verdict["anchors"]) == (True, 1), verdict
    of_node = tmp_path / "node.jsonl"
    of_node.write_text(node(lab, "audit", "export", "edge").stdout)
    verdict = json.loads(lab("manager", "audit", "verify", "--anchors", of_node, "--json"))
    assert (verdict["intact"], verdict["anchors"]) == (True, 1)
    # Whoever has the node's key, and has it begin its log anew, is found by the manager's.
    copy = lab.home / "state" / "nodes" / "edge" / "audit"
    aside = shutil.copytree(copy, tmp_path / "aside")
    try:
        for path in copy.iterdir():
            path.unlink()
        shutil.copy(aside / "lock", copy)
        (copy / "head.json").unlink(missing_ok=True)
        assert node(lab, "audit", "verify", "edge").returncode == Exit.LOCAL
        done = node(lab, "audit", "verify", "edge", "--anchors", exported)
        assert done.returncode == Exit.LOCAL
    finally:
        shutil.rmtree(copy)
        shutil.copytree(aside, copy)
    done = node(lab, "audit", "verify", "edge", "--anchors", lab.home.parent / "swarm.py")
    assert done.returncode == Exit.USAGE
    assert "swarm.py, line 1, is no record of an audit log" in done.stderr


def test_the_first_record_that_is_wrong_is_named(lab: Lab, tmp_path: Path) -> None:
    verdict = json.loads(lab("manager", "audit", "verify", "--json"))
    copy = shutil.copytree(kept(lab), tmp_path / "copy")
    where: tuple[object, ...] = ("manager", "audit", "verify", "--folder", copy)
    assert lab.attempt(*where).returncode == Exit.USAGE
    where = (*where, "--key", verdict["key"])
    assert "is intact" in lab(*where, "--head", verdict["head"])
    segment = copy / "000000000001.log"
    segment.write_bytes(segment.read_bytes().replace(b'"add-user"', b'"get-user"'))
    done = lab.attempt(*where)
    assert done.returncode == Exit.LOCAL
    [number] = [one["number"] for one in records(lab("manager", "audit", "export"))
                if one["act"] == "add-user"]  # fmt: skip
    first, before = done.stdout.splitlines()[:2]
    assert first.startswith(f"000000000001.log, record {number}: edited: records {number} to ")
    assert before == f"All records up to {number - 1} are shown to be as they were written."
    whole = (kept(lab) / segment.name).read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(whole[:-3]))
    assert "the end is cut" in lab.attempt(*where).stdout
    done = lab.attempt(*where, "--json")
    fault = json.loads(done.stdout)["faults"][0]
    assert (fault["what"], fault["file"]) == ("cut", segment.name)


def test_a_restored_manager_goes_on_with_its_log_or_says_from_where_on(
    lab: Lab, tmp_path: Path
) -> None:
    backup = lab.home.parent / "earlier"
    assert verify_file(backup).flaws == []
    before = json.loads(lab("manager", "audit", "verify", "--json"))
    # In the place of the folder: what was recorded since the backup stays.
    place = shutil.copytree(lab.home / "manager", tmp_path / "place")
    lab("manager", "restore", backup, "--replace", "--home", place)
    verdict = json.loads(
        lab("manager", "audit", "verify", "--home", place, "--head", before["head"], "--json")
    )
    assert (verdict["intact"], verdict["anchors"]) == (True, 1)
    last = records(lab("manager", "audit", "export", "--home", place))[-1]
    assert (last["act"], last["number"]) == ("manager-restored", before["records"] + 1)
    # On another machine: it goes on from the backup, and what was kept of later records shows it.
    other = tmp_path / "other"
    lab("manager", "restore", backup, "--home", other)
    told = lab("manager", "audit", "verify", "--home", other)
    assert "the log was restored as of record" in told
    done = lab.attempt("manager", "audit", "verify", "--home", other, "--head", before["head"])
    assert done.returncode == Exit.LOCAL


def test_with_another_key_the_former_one_has_to_be_named(lab: Lab, tmp_path: Path) -> None:
    place = shutil.copytree(lab.home / "manager", tmp_path / "place")
    before = json.loads(lab("manager", "audit", "verify", "--home", place, "--json"))
    (place / "signing.key").unlink()
    os.close(os.open(place / "signing.key", os.O_CREAT | os.O_WRONLY, 0o600))
    (place / "signing.key").write_text("22" * 32 + "\n")
    lab("manager", "reset-password", "--home", place, "--email", "admin@localhost")
    verify = ("manager", "audit", "verify", "--home", place)
    done = lab.attempt(*verify)
    assert done.returncode == Exit.LOCAL
    assert "name the whole key with --key" in done.stdout
    told = lab(*verify, "--key", before["key"])
    assert "from here on the key" in told
    last = records(lab("manager", "audit", "export", "--home", place))[-1]
    assert (last["act"], last["about"]["email"]) == ("reset-password", "admin@localhost")


def test_where_there_is_no_log_it_is_said(lab: Lab, tmp_path: Path) -> None:
    done = lab.attempt("manager", "audit", "export", "--home", tmp_path)
    assert done.returncode == Exit.LOCAL
    assert "There is no audit log in" in done.stderr
    assert node(lab, "audit", "verify", "nobody").returncode == Exit.NOT_FOUND
    done = lab.attempt("manager", "audit", "export", "--since", "yesterday")
    assert done.returncode == Exit.USAGE
    assert "'yesterday' is no time: write 2026-11-30" in done.stderr
