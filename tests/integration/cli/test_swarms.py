"""What is done to swarms and read of them from the command line, by real processes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas
import pytest

from manta.apis.user_api import UserAPI
from manta.cli.live.following import Follower, Happening
from manta.cli.live.view import SwarmView
from manta.cli.local.cluster import CLUSTER
from manta.console.exit_codes import Exit
from manta.console.lines import Line
from manta.console.terminal import Screen
from manta.protocol.names import file_name
from manta.protocol.user import FeedName
from tests.integration.cli.conftest import Shell
from tests.support.children import Child
from tests.support.terminal import at_terminal


def test_globals(shell: Shell, finished: str) -> None:
    shown = shell("globals", finished)
    assert "last" in shown
    assert shell.json("globals", finished) == [
        {"tag": "last", "value": 1},
        {"tag": "rate", "value": 0.1},
    ]
    assert len(shell.json("globals", finished, "--tag", "rate")) == 1
    unknown = shell.attempt("globals", finished, "--tag", "rte")
    assert unknown.returncode == Exit.NOT_FOUND
    assert "it has last, rate" in unknown.stderr


def test_metrics(shell: Shell, finished: str) -> None:
    lines = shell("metrics", "-f", finished).splitlines()
    assert len(lines) == 4
    assert "only.0 on node-1  loss 0.5" in "\n".join(lines)
    records = [json.loads(line) for line in shell("metrics", finished, "--json").splitlines()]
    assert [record["metrics"] for record in records] == [{"loss": 0.5}] * 4


CHATTY = """
from manta import Module, Swarm, Task

CODE = '''
from manta.light import World

def main():
    for number in range(2500):
        World().log_metrics({"number": number})
'''

class Chatty(Swarm):
    def execute(self):
        return Task(Module(CODE, name="chatty"), method="any")
"""


class LateFollower(Follower):
    """Its reader of metrics sleeps until the end of an iteration was shown."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.shown = threading.Event()

    def _read_metrics(self, feed: FeedName) -> None:
        self.shown.wait(60)
        super()._read_metrics(feed)

    def _take(self, happening: Happening, lines: list[Line]) -> bool:
        ended = super()._take(happening, lines)
        if any(line.startswith("iteration") for line in map(str, lines)):
            self.shown.set()
        return ended


def test_what_is_said_of_an_iteration_covers_all_of_its_metrics(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shell.folder / "chatty.py").write_text(CHATTY)
    swarm = shell("deploy", "--cluster", CLUSTER, "--follow", "chatty.py").split()[0]
    monkeypatch.setenv("MANTA_HOME", str(shell.home))
    shown = io.StringIO()
    with UserAPI() as api:
        follower = LateFollower(api, api.get_swarm(swarm), SwarmView(), Screen(shown))
        follower.run(logs=False)
    assert "number 2499" in shown.getvalue()


def test_logs_of_one_task_or_node_and_of_none(shell: Shell, finished: str) -> None:
    assert len(shell("logs", finished, "--task", "only").splitlines()) == 4
    assert len(shell("logs", finished, "--node", "node-2").splitlines()) == 2
    assert len(shell("logs", "-f", finished, "--node", "node-2", "--task", "only").split("\n")) == 3
    for option, name in (("--task", "onyl"), ("--node", "node-3")):
        for follow in ((), ("-f",)):
            unknown = shell.attempt("logs", *follow, finished, option, name)
            assert unknown.returncode == Exit.NOT_FOUND
            assert repr(name) in unknown.stderr
    assert "there is only" in shell.attempt("logs", finished, "--task", "onyl").stderr


def test_pause_resume_stop_and_rm(shell: Shell) -> None:
    swarm = shell.deploy("-p", "pause=20")
    assert shell("pause", swarm[:8]) == f"Swarm Measured ({swarm}) is PAUSED.\n"
    refused = shell.attempt("rm", swarm)
    assert refused.returncode == Exit.REFUSED
    assert "PAUSED" in refused.stderr
    assert shell.json("resume", swarm)["status"] == "ACTIVE"
    assert shell.json("stop", swarm, "--force")["status"] == "STOPPED"
    assert shell.attempt("pause", swarm).returncode == Exit.REFUSED
    assert shell("rm", swarm) == f"Removed swarm Measured ({swarm}).\n"
    assert shell.attempt("pause", swarm).returncode == Exit.NOT_FOUND
    running = shell.deploy("-p", "pause=30")
    gone = {"swarm_id": running, "name": "Measured", "removed": True}
    assert shell.json("rm", "--stop", running) == gone


def test_a_helper_beside_the_module_goes_along_and_is_told(shell: Shell) -> None:
    (shell.folder / "beside").mkdir(exist_ok=True)
    (shell.folder / "beside" / "worker.py").write_text(
        "import helper\nfrom manta.light import World\n"
        "def main():\n    World().results.add('from', helper.NAME)\n"
    )
    (shell.folder / "beside" / "helper.py").write_text("NAME = 'helper'\n")
    (shell.folder / "helped.py").write_text(
        "from manta import Swarm, Task\n"
        "class Helped(Swarm):\n"
        "    def execute(self):\n        return Task('beside/worker.py', 'any')\n"
    )
    note = "Module worker takes along what it imports and lies beside it: helper.py."
    where = ("--cluster", CLUSTER, "helped.py")
    assert note in shell("check", *where)
    assert shell.json("check", *where)["notes"] == [note]
    deployed = shell.attempt("deploy", *where)
    assert deployed.stderr == f"{note}\n"
    ran = shell.json("results", deployed.stdout.strip(), "--wait")
    assert [result["value"] for result in ran] == ["helper"]
    assert note in shell.attempt("module", "push", "beside/worker.py").stderr
    shell("module", "rm", "worker")


def test_check_says_where_and_why_not(shell: Shell) -> None:
    assert "only.1  node-2" in shell("check", "--cluster", CLUSTER, "swarm.py")
    refused = shell.attempt("check", "--cluster", CLUSTER, "swarm.py", "-p", "dataset=missing")
    assert refused.returncode == Exit.UNPLACEABLE
    assert "'missing'" in refused.stdout
    arguments = ("check", "--cluster", CLUSTER, "swarm.py", "-p", "dataset=x", "--json")
    assert json.loads(shell.attempt(*arguments).stdout)["problems"]
    assert shell.attempt("check", "--cluster", "nowhere", "swarm.py").returncode == Exit.NOT_FOUND


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_why_not_is_whole_at_a_narrow_terminal(shell: Shell, columns: int) -> None:
    check = ("check", "--cluster", CLUSTER, shell.folder / "swarm.py", "-p", "dataset=missing")
    shown = at_terminal(*check, columns=columns, MANTA_HOME=shell.home)
    lines = click.unstyle(shown.text).splitlines()
    assert shown.code == Exit.UNPLACEABLE
    assert max(map(len, lines)) <= columns
    assert "…" not in shown.text
    piped = shell.attempt(*check).stdout
    assert " ".join(lines[0].split()) in " ".join(piped.split())
    told = at_terminal(*check, columns=200, MANTA_HOME=shell.home, COLUMNS=columns)
    assert click.unstyle(told.text).splitlines() == lines


def test_pull_and_verify(shell: Shell, finished: str) -> None:
    said = shell("pull", finished)
    folder = shell.folder / f"Measured-{finished}"
    assert said.startswith(f"{folder.name}: 8 results")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "COMPLETED"
    assert "logs.ndjson" in manifest["files"]
    assert len((folder / "logs.ndjson").read_text().splitlines()) == 4
    index = json.loads((folder / "results.json").read_text())
    assert len(index) == 8
    small = next(entry for entry in index if entry["tag"] == "small" and entry["index"] == 1)
    from manta.transports.codec.values import decode

    assert decode((folder / small["file"]).read_bytes()) == [1]
    assert json.loads((folder / small["file"]).with_suffix(".json").read_text()) == [1]
    array = next(entry for entry in index if entry["tag"] == "array")
    read = np.load((folder / array["file"]).with_suffix(".npy"), allow_pickle=False)
    assert read.tolist() == [0, 1, 2, 3, 4]
    assert sorted(pandas.read_parquet(folder / "results.parquet")["tag"]) == sorted(
        entry["tag"] for entry in index if entry["tag"] != "array"
    )
    assert decode((folder / array["file"]).read_bytes()).tolist() == [0, 1, 2, 3, 4]
    assert shell("pull", "--verify", folder).endswith("is unchanged since it was pulled.\n")
    (folder / "logs.ndjson").write_text("something else\n")
    (folder / "swarm.json").unlink()
    (folder / "extra").write_text("")
    spoilt = shell.attempt("pull", "--verify", folder)
    assert spoilt.returncode == Exit.LOCAL
    assert spoilt.stdout.splitlines() == [
        "swarm.json is missing.",
        "extra is not in the manifest.",
        "logs.ndjson has changed since it was pulled.",
    ]
    assert "already exists" in shell.attempt("pull", finished, folder).stderr


def test_a_new_project_runs_at_once(shell: Shell) -> None:
    assert "manta run my-swarm/swarm.py" in shell("new", "my-swarm")
    done = shell("run", "my-swarm/swarm.py", "--nodes", "3", "--json")
    assert '"COMPLETED"' in done
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", shell.folder / "my-swarm"],
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in tested.stdout, tested.stdout
    assert shell.attempt("new", "my-swarm").returncode == Exit.USAGE
    assert "begin it with a letter" in shell.attempt("new", "123").stderr


EMPTY = """
from manta import Module, Swarm, Task

class Empty(Swarm):
    def __init__(self, code: str = "pass") -> None:
        super().__init__()
        self.only = Task(Module("import time\\ndef main():\\n    " + code + "\\n", name="only"))
"""


def test_results_are_deleted(shell: Shell, tmp_path: Path) -> None:
    swarm = shell("deploy", "--cluster", CLUSTER, "--follow", "swarm.py").split()[0]
    asked = shell.attempt("results", swarm, "--delete")  # nobody answers
    assert (asked.returncode, asked.stdout) == (Exit.USAGE, "")
    assert f"Delete all results of swarm Measured ({swarm})?" in asked.stderr
    assert len(shell.json("results", swarm)) == 8
    for arguments in (["--yes"], ["--delete", "--wait"], ["--delete", "--node", "node-1"]):
        assert shell.attempt("results", swarm, *arguments).returncode == Exit.USAGE
    unknown = shell.attempt("results", swarm, "--delete", "--yes", "--tag", "nosuch")
    assert unknown.returncode == Exit.NOT_FOUND
    assert "no results of tag 'nosuch': it has array, small." in unknown.stderr
    said = shell("results", swarm[:8], "--delete", "--yes", "--tag", "small", "--iteration", 0)
    assert said == f"Deleted 2 results of tag small of iteration 0 of swarm Measured ({swarm}).\n"
    assert shell.json("results", swarm, "--delete", "--yes", "--tag", "array")["deleted"] == 4
    assert shell("pull", swarm, tmp_path / "pulled").startswith(f"{tmp_path}/pulled: 2 results")
    assert "2 results of tag 'small'" in shell("replay", swarm, "--json")
    assert shell.json("results", swarm, "--delete", "--yes")["deleted"] == 2
    assert "has no results" in shell.attempt("results", swarm).stderr


def test_no_results_do_not_read_as_success(shell: Shell) -> None:
    (shell.folder / "empty.py").write_text(EMPTY)
    swarm = shell("deploy", "--cluster", CLUSTER, "--follow", "empty.py").split()[0]
    none = shell.attempt("results", swarm, "--json")
    assert (none.returncode, none.stdout) == (Exit.NOT_FOUND, "[]\n")
    assert "Empty is COMPLETED and has no results" in none.stderr
    slow = shell("deploy", "--cluster", CLUSTER, "empty.py", "-p", "code=time.sleep(60)").strip()
    assert "no results yet" in shell.attempt("results", slow).stderr
    late = shell.attempt("results", slow, "--wait", "--timeout", 0.2)
    assert late.returncode == Exit.TIMEOUT
    assert late.stderr.startswith("Error: Swarm 'Empty' is still ACTIVE after 0.2 s")
    assert shell.attempt("results", slow, "--timeout", 1).returncode == Exit.USAGE
    shell("rm", "--stop", slow)


TRIED = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import World
from manta.light.context import current
def main():
    world = World()
    attempt = current().brief.attempt
    fails = attempt < FAILURES and world.rank == 1
    world.results.add("node-2", 100 if fails else 1)
    if fails and attempt:  # the swarm's end: not before the other instance has finished
        world.receive_from_node(world.peers[0], "nothing")
    if fails:
        raise RuntimeError("once")
"""

class Tried(Swarm):
    def __init__(self, failures: int = 1) -> None:
        super().__init__()
        code = CODE.replace("FAILURES", str(failures))
        self.only = Task(Module(code, name="only"), retries=1)
'''


def test_what_failed_attempts_wrote_is_left_out_unless_asked_for(shell: Shell) -> None:
    (shell.folder / "tried.py").write_text(TRIED)
    where = ("deploy", "--cluster", CLUSTER, "tried.py")
    swarm = shell(*where).strip()
    assert [one["value"] for one in shell.json("results", swarm, "--wait")] == [1, 1]
    marked = shell.json("results", swarm, "--all")
    assert sorted((one["value"], one["counts"]) for one in marked) == [
        (1, True),
        (1, True),
        (100, False),
    ]
    shown = [line for line in shell("results", swarm, "--all").splitlines() if "100" in line]
    assert [line.endswith("100  (of a failed attempt)") for line in shown] == [True]
    folder = shell.folder / shell.json("pull", swarm)["folder"]
    index = json.loads((folder / "results.json").read_text())
    assert sorted(entry["counts"] for entry in index) == [False, True, True]
    never = shell(*where, "-p", "failures=2").strip()
    shell.attempt("results", never, "--wait")
    (one,) = shell.json("results", never)
    assert (one["node"], one["value"]) == ("node-1", 1)


def test_a_node_is_told_from_a_tag_of_that_name(shell: Shell) -> None:
    (shell.folder / "tried.py").write_text(TRIED)
    swarm = shell("deploy", "--cluster", CLUSTER, "tried.py", "-p", "failures=0").strip()
    assert len(shell.json("results", swarm, "--wait", "--tag", "node-2")) == 2
    (one,) = shell.json("results", swarm, "--node", "node-2")
    assert (one["node"], one["tag"]) == ("node-2", "node-2")


def test_exit_codes_of_what_is_followed(shell: Shell) -> None:
    (shell.folder / "empty.py").write_text(EMPTY)
    follow = ("deploy", "--cluster", CLUSTER, "--follow", "empty.py", "-p")
    failed = shell.attempt(*follow, "code=1/0")
    assert failed.returncode == Exit.SWARM_FAILED
    assert "ZeroDivisionError" in failed.stdout
    with Child(
        [sys.executable, "-m", "manta", *follow, "code=time.sleep(60)"],
        env={**os.environ, "MANTA_HOME": str(shell.home)},
        cwd=shell.folder,
        stdout=subprocess.PIPE,
        text=True,
    ) as followed:
        assert followed.stdout is not None
        shell("stop", followed.stdout.readline().strip(), "--force")
        assert followed.wait(60) == Exit.SWARM_STOPPED


def test_unknown_and_ambiguous_names(shell: Shell, finished: str) -> None:
    for arguments, words in [
        (("stop", "nosuch"), "There is no swarm 'nosuch'; see `manta ps`"),
        (("replay", "nosuch"), "There is no swarm 'nosuch'"),
        (("ps", "--cluster", "nosuch"), "There is no cluster 'nosuch'; see `manta cluster list`"),
        (("node", "show", "nosuch"), "There is no node 'nosuch'"),
        (("user", "show", "nosuch"), "There is no user 'nosuch'"),
        (("node", "show", "node-"), "'node-' may be any of 2 nodes (node-1, node-2)"),
        (("results", finished, "--tag", "nosuch"), "nosuch"),
        (("results", finished, "--node", "nosuch"), "nosuch"),
        (("results", finished, "--iteration", 9), "No results of iteration 9"),
    ]:
        done = shell.attempt(*arguments)
        assert done.returncode == Exit.NOT_FOUND, arguments
        assert words in done.stderr, arguments
        assert (done.stdout, len(done.stderr.splitlines())) == ("", 1), arguments


def test_replay_tells_the_history_again(shell: Shell, finished: str) -> None:
    live = shell("deploy", "--cluster", CLUSTER, "--follow", "swarm.py")
    swarm, told = live.split("\n", 1)
    again = shell("replay", swarm)
    assert sorted(again.splitlines()) == sorted(told.splitlines())
    assert again.index("iteration   0") < again.index("iteration   1") < again.index("COMPLETED")
    shell("pull", swarm, "kept")
    assert shell("replay", "kept", "--speed", 1000) == again
    records = [json.loads(line) for line in shell("replay", "kept", "--json").splitlines()]
    assert [r["at"] for r in records] == sorted(r["at"] for r in records)
    assert {r["feed"] for r in records} == {"events", "metrics", "logs"}
    assert "line of" not in shell("replay", swarm, "--no-logs")
    (shell.folder / "kept" / "events.ndjson").unlink()
    for folder in ("kept", "."):
        refused = shell.attempt("replay", folder)
        assert refused.returncode == Exit.LOCAL
        assert "give a folder that `manta pull` wrote" in refused.stderr


ODD = ["a/b", "../up", "..", "100 %", "größe", "é" * 200, "--tag", "~"]
ODD_SWARM = '''
from manta import Module, Swarm, Task

CODE = """
from manta.light import World
def main():
    world = World()
    for tag in TAGS:
        world.results.add(tag, [1.0])
        world.globals[tag] = 1
"""

class Odd(Swarm):
    name = "x/../../odd"

    def execute(self):
        return Task(Module(CODE, name="é" * 200), "any", alias="a/..")
'''


def test_whatever_a_task_may_name_is_read_listed_pulled_and_exported(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shell.folder / "odd.py").write_text(ODD_SWARM.replace("TAGS", repr(ODD)))
    swarm = shell("deploy", "--cluster", CLUSTER, "odd.py").strip()
    found = shell.json("results", swarm, "--wait")
    assert [result["tag"] for result in found] == ODD
    assert sorted(one["tag"] for one in shell.json("globals", swarm)) == sorted(ODD)
    for tag in ODD:
        (record,) = shell.json("results", swarm, f"--tag={tag}")
        assert (record["tag"], record["task"]) == (tag, "a/...0")
        assert shell.json("globals", swarm, f"--tag={tag}")[0]["value"] == 1
    before = {*shell.folder.iterdir()}
    folder = shell.folder / shell.json("pull", swarm)["folder"]
    assert {*shell.folder.iterdir()} - before == {folder}
    assert len([*(folder / "globals").glob("*.json")]) == len(ODD)
    monkeypatch.setenv("MANTA_HOME", str(shell.home))
    with UserAPI() as api:
        api.get_swarm_results(swarm).to_npz(tmp_path / "odd.npz")
    with np.load(tmp_path / "odd.npz") as arrays:
        assert {key.split("/")[1] for key in arrays} == {*map(file_name, ODD)}


NAMES = r'''
from manta import Module, Swarm, Task

CODE = """
from manta.light import World
def main():
    world = World()
    for value in ("caf\\udce9", ["caf\\udce9"], {"caf\\udce9": 1}):
        world.results.add(type(value).__name__, value)
        world.globals[type(value).__name__] = value
    return "caf\\udce9"
"""

class Names(Swarm):
    def execute(self):
        return Task(Module(CODE, name="names"), "any")
'''


def test_names_of_files_that_are_not_utf8_are_shown_and_pulled(shell: Shell) -> None:
    (shell.folder / "names.py").write_text(NAMES)
    swarm = shell("deploy", "--cluster", CLUSTER, "names.py").strip()
    name = "caf\udce9"
    values = [one["value"] for one in shell.json("results", swarm, "--wait")]
    assert values == [name, [name], {name: 1}]
    assert sorted(one["tag"] for one in shell.json("globals", swarm)) == ["dict", "list", "str"]
    for words in (("results", swarm), ("globals", swarm), ("explain", swarm)):
        shell(*words)
    folder = shell.folder / shell.json("pull", swarm)["folder"]
    assert json.loads((folder / "globals" / "str.json").read_text()) == name
    assert len(pandas.read_parquet(folder / "results.parquet")) == 3
    shell("replay", folder)


def test_pull_that_cannot_be_written_leaves_nothing(shell: Shell, finished: str) -> None:
    there = set(shell.folder.iterdir())
    (shell.folder / "file").write_text("")
    refused = shell.attempt("pull", finished, "file/below")
    assert refused.returncode == Exit.LOCAL
    assert "cannot be written: Not a directory" in refused.stderr
    script = 'ulimit -f 1; exec "$0" -m manta pull "$1" full'
    full = subprocess.run(
        ["bash", "-c", script, sys.executable, finished],
        env={**os.environ, "MANTA_HOME": str(shell.home)},
        cwd=shell.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert full.returncode == Exit.LOCAL, full.stderr
    assert "full cannot be written: File too large; make room there" in full.stderr
    (shell.folder / "file").unlink()
    assert set(shell.folder.iterdir()) == there


def test_what_was_meant_by_a_name_that_is_not_there(shell: Shell, finished: str) -> None:
    shell("module", "push", "--name", "kept", "swarm.py")
    for words, meant in {
        ("cluster", "show", "locl"): "local",
        ("ps", "--cluster", "locl"): "local",
        ("node", "show", "node-11"): "node-1",
        ("logs", finished, "--node", "nod-2"): "node-2",
        ("logs", finished, "--task", "onyl"): "only",
        ("results", finished, "--tag", "smal"): "small",
        ("globals", finished, "--tag", "rte"): "rate",
        ("module", "show", "kep"): "kept",
        ("user", "show", "usr@localhost"): "user@localhost",
        ("stop", "Measurd"): "Measured",
    }.items():
        said = shell.attempt(*words)
        assert said.returncode == Exit.NOT_FOUND, words
        assert said.stderr.rstrip().endswith(f" Did you mean {meant!r}?"), said.stderr
    assert "mean" not in shell.attempt("cluster", "show", "quite-another").stderr
    (shell.folder / "meant.py").write_text(
        "from manta import Module, Swarm, Task\nclass Meant(Swarm):\n"
        "    def execute(self):\n        return Task(Module('kepd'))()\n"
    )
    said = shell.attempt("check", "--cluster", CLUSTER, "meant.py")
    assert "the registry of modules (none of that name; the nearest is kept)" in said.stderr


def test_ps_shows_the_cluster_and_how_long_ago(shell: Shell, finished: str) -> None:
    header, *lines = shell("ps").splitlines()
    assert header.split() == ["ID", "NAME", "CLUSTER", "STATUS", "ITERATION", "CREATED", "REASON"]
    (line,) = [line for line in lines if line.startswith(finished)]
    assert re.search(rf" {CLUSTER} +COMPLETED +\d+ +[\d.]+ (s|min \d\d s) ago ", line)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        (None, "There is no profile 'lab'"),
        (b"", "lab.json"),
        (b"{", "lab.json"),
        ('{"host": "h"}'.encode("utf-16"), "lab.json"),
        (b'{"host": "h", "of_a_later_version": 1}', "of_a_later_version"),
        (b'{"host": 3}', "lab.json"),
        ("folder", "lab.json"),
    ],
)
def test_a_damaged_profile_is_named(
    shell: Shell, tmp_path: Path, profile: bytes | str | None, words: str
) -> None:
    path = tmp_path / "home" / "profiles" / "lab.json"
    path.parent.mkdir(parents=True)
    if isinstance(profile, bytes):
        path.write_bytes(profile)
    elif profile:
        path.mkdir()
    done = Shell(tmp_path / "home", tmp_path).attempt("ps", "--profile", "lab")
    assert done.returncode == Exit.LOCAL, done.stderr
    assert done.stderr.startswith("Error: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_that_others_may_read_is_refused(shell: Shell, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(shell.home, home)
    (home / "keys" / "default.key").chmod(0o644)
    done = Shell(home, tmp_path).attempt("ps")
    assert done.returncode == Exit.LOCAL, done.stderr
    assert "chmod 600" in done.stderr


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("class X(:", "Syntax error in {file}, line 2"),
        (
            "import nosuchmodule",
            "No module named 'nosuchmodule' ({file}, line 2",
        ),
        ("x = 1", "defines no Swarm"),
        ("class A(Swarm): ...\nclass B(Swarm): ...", "give file.py:A or file.py:B"),
        (
            "class A(Swarm):\n    def execute(self): return 1 / 0",
            "division by zero ({file}, line 3",
        ),
        ("class A(Swarm):\n    def __init__(self, n: int): ...", "needs the parameter 'n'"),
    ],
)
def test_files_that_are_no_swarm(shell: Shell, tmp_path: Path, code: str, words: str) -> None:
    file = tmp_path / "file.py"
    file.write_text(f"from manta import Module, Swarm, Task\n{code}\n")
    for command in ("deploy", "check"):
        done = shell.attempt(command, "--cluster", CLUSTER, file)
        assert done.returncode == Exit.INVALID_SWARM, done.stderr
        assert words.format(file=file) in done.stderr.splitlines()[0]
        assert "/manta/" not in done.stderr.replace("/manta/apis/__init__", "")


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ("pause=soon", "takes a number as pause, not 'soon'"),
        ("puase=1", "no parameter 'puase'"),
        ("pause", "is not KEY=VALUE"),
    ],
)
def test_parameters_that_do_not_fit(shell: Shell, parameter: str, words: str) -> None:
    done = shell.attempt("deploy", "--cluster", CLUSTER, "swarm.py", "-p", parameter)
    assert done.returncode == Exit.INVALID_SWARM
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
