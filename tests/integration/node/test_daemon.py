"""The daemon as a process of its own, and the command that starts it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manta.node.config import toml_value
from tests.integration.node.conftest import Command
from tests.support.children import Child, signal_other_thread


@contextmanager
def daemon(lab, number: int = 1, wait: str = "connected") -> Iterator[subprocess.Popen[bytes]]:
    state = lab.known(number)
    config = lab.config(f"node-{number}")
    state.status_file.unlink(missing_ok=True)
    arguments = ["--config", str(config.path), "--state", str(state.path)]
    log = lab.folder / f"daemon-{number}.log"
    with (
        open(log, "ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "manta.node", *arguments], stderr=output
        ) as process,
    ):
        try:
            if wait:
                lab.wait_for(state, wait)
            yield process
        finally:
            process.kill()


def processes_with(text: str) -> list[str]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if text.encode() in line:
            found.append(pid)
    return found


SLOW = """
import subprocess
import time
from manta.light import World

def main():
    world = World()
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    world.results.add("begun", world.iteration)
    time.sleep(300)
"""


def test_sigterm_ends_everything_in_good_order(lab) -> None:
    api = lab.api()
    with daemon(lab) as process:
        deployed = api.deploy_swarm("lab", lab.swarm(SLOW))
        lab.wait_until(lambda: api.list_result_tags(deployed))
        sessions = str(lab.state("node-1").path)
        assert processes_with(sessions)
        process.terminate()
        assert process.wait(60) == 0
        assert not processes_with(sessions)
        assert lab.state("node-1").read_status().state == "stopped"
        lab.wait_until(lambda: api.get_node("node-1").status != "CONNECTED")
        [task] = [t for t in api.get_tasks(deployed) if t.status == "INTERRUPTED"]
        assert "the node stops" in task.error.sentence


def test_a_signal_that_any_thread_takes_ends_it(lab) -> None:
    with daemon(lab) as process:
        signal_other_thread(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0
        assert lab.state("node-1").read_status().state == "stopped"


def test_a_killed_daemon_leaves_nothing_and_tells_what_it_lost(lab) -> None:
    api = lab.api()
    code = """
import os, subprocess, time
from manta.light import Local, World

def main():
    world, local = World(), Local()
    tries = local.get_state("tries", default=0) + 1
    local.set_state("tries", tries)
    world.results.add("begun", tries)
    if tries == 1:
        subprocess.Popen(["sleep", "300"], start_new_session=True)
        time.sleep(300)
"""
    with daemon(lab) as process:
        deployed = api.deploy_swarm("lab", lab.swarm(code, retries=1))
        lab.wait_until(lambda: "begun" in str(api.list_result_tags(deployed)))
        process.kill()
        process.wait()
    folder = str(lab.state("node-1").path)
    lab.wait_until(lambda: not processes_with(folder), 10, lambda: processes_with(folder))
    with daemon(lab):
        ended = api.wait_swarm(deployed, timeout=60)
        assert ended.status == "COMPLETED", ended
        first, second = api.get_tasks(deployed)
        assert first.status == "INTERRUPTED"
        assert "daemon ended while it ran" in first.error.sentence
        assert second.status == "FINISHED"


def test_killed_with_results_that_nobody_has_heard(lab) -> None:
    """The manager is away; the daemon is killed; both come back: all is told once."""
    api = lab.api()
    code = """
import time
import numpy
from manta.light import World

def main():
    world = World()
    world.results.add("begun", 1)
    time.sleep(1.0)
    world.results.add("large", numpy.arange(100_000))
    world.results.add("small", 5)
    print("last words")
"""
    with daemon(lab) as process:
        deployed = api.deploy_swarm("lab", lab.swarm(code))
        lab.wait_until(lambda: api.list_result_tags(deployed))
        lab.stop_manager()
        state = lab.state("node-1")
        lab.wait_until(lambda: b"small" in b"".join(p.read_bytes() for p in journals(state)))
        time.sleep(0.3)
        process.kill()
        process.wait()
    lab.start_manager()
    api = lab.api()
    with daemon(lab):
        ended = api.wait_swarm(deployed, timeout=60)
        assert ended.status == "COMPLETED", ended
        [task] = api.get_tasks(deployed)
        assert task.status == "FINISHED"
        results = {item.tag: item.value for item in api.stream_results(deployed)}
        assert results["small"] == 5
        assert results["large"].sum() == sum(range(100_000))
        assert [line.text for line in api.collect_logs(deployed)] == ["last words"]


def test_a_value_that_the_disk_lost_interrupts_its_attempt(lab) -> None:
    api = lab.api()
    code = """
import time
import numpy
from manta.light import Local, World

def main():
    local = Local()
    tries = local.get_state("tries", default=0) + 1
    local.set_state("tries", tries)
    World().results.add("begun", tries)
    if tries == 1:
        time.sleep(0.5)
    World().results.add("large", numpy.full(100_000, tries))
"""
    with daemon(lab) as process:
        deployed = api.deploy_swarm("lab", lab.swarm(code, retries=1))
        lab.wait_until(lambda: api.list_result_tags(deployed))
        lab.stop_manager()
        state = lab.state("node-1")
        lab.wait_until(lambda: list(state.spool.glob("[0-9a-f][0-9a-f]/*")))
        time.sleep(0.3)
        process.kill()
        process.wait()
    for path in state.spool.glob("[0-9a-f][0-9a-f]/*"):
        path.unlink()
    lab.start_manager()
    api = lab.api()
    with daemon(lab):
        ended = api.wait_swarm(deployed, timeout=60)
        assert ended.status == "COMPLETED", ended
        first, second = api.get_tasks(deployed)
        assert first.status == "SUPERSEDED"  # its FINISHED came after it was given up
        assert second.status == "FINISHED"


def journals(state) -> list[Path]:
    return list(state.journal.glob("*.journal"))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("[network]\nmanager_prot = 1\n", 11, "line 2: there is no key 'network.manager_prot'"),
        ("[network\n", 11, "line 1, column 9: it is not TOML"),
        ("", 6, "no token and has not enrolled"),
        ("[identity]\nsecured_token = '${NO_SUCH_VARIABLE}'\n", 6, "NO_SUCH_VARIABLE is not set"),
    ],
)
def test_a_daemon_that_cannot_start_says_why(
    tmp_path: Path, text: str, code: int, words: str
) -> None:
    config = tmp_path / "node.toml"
    config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "manta.node", "--config", config, "--state", tmp_path / "state"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_daemon_may_hold_as_many_descriptors_as_the_system_allows() -> None:
    code = """
import resource
from manta.transports.descriptors import raise_descriptor_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


# The command.


def init(lab, manta_node: Command, *arguments: object) -> subprocess.CompletedProcess[str]:
    port = lab.file.nodes.rpartition(":")[2]
    where = ("--manager-host", "127.0.0.1", "--manager-port", port, "--id", "random")
    return manta_node("config", "init", "edge", "--allow-unsandboxed", *where, *arguments)


def test_from_config_to_stop(lab, manta_node: Command) -> None:
    (lab.folder / "data.csv").write_text("1,2\n")
    done = init(lab, manta_node, "--dataset", f"table={lab.folder}/data.csv", "--label", "a=b")
    assert done.returncode == 0, done.stderr
    assert "manta_node start edge" in done.stdout
    again = init(lab, manta_node)
    assert again.returncode == 11
    assert "--force replaces it" in again.stderr
    path = manta_node.home / "nodes" / "edge.toml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert manta_node("config", "list").stdout == "edge\n"
    shown = manta_node("config", "show", "edge", MANTA_NODE_TOKEN="hunter2").stdout
    assert toml_value(f"{lab.folder}/data.csv") in shown
    assert "hunter2" not in shown
    assert manta_node("config", "validate", "edge").returncode == 0

    missing = manta_node("start", "edge", "--background")
    assert missing.returncode == 6
    assert "MANTA_NODE_TOKEN is not set" in missing.stderr

    api = lab.api()
    token = api.create_node_token("lab")
    started = manta_node("start", "edge", "--background", MANTA_NODE_TOKEN=token)
    assert started.returncode == 0, started.stderr
    assert "Connected to the manager" in started.stdout
    assert api.get_node("edge").datasets["table"].size == 4
    second = manta_node("start", "edge", "--background")
    assert second.returncode == 11
    assert "runs already" in second.stderr

    status = manta_node("status", "edge")
    assert status.returncode == 0
    assert "edge: connected since" in status.stdout
    as_json = json.loads(manta_node("status", "edge", "--json").stdout)
    assert as_json["state"] == "connected"
    assert as_json["node_id"] == api.get_node("edge").id
    assert token.encode() not in Path(f"/proc/{as_json['pid']}/environ").read_bytes()
    logs = manta_node("logs", "edge", "-n", 0)
    assert "Connected to the manager" in logs.stdout

    stopped = manta_node("stop", "edge")
    assert stopped.returncode == 0
    assert "was stopped" in stopped.stdout
    assert manta_node("status", "edge").returncode == 7
    assert "stopped" in manta_node("status", "edge").stdout
    assert "does not run" in manta_node("stop", "edge").stdout

    # Its own key is enough now, and the manager may be away.
    lab.stop_manager()
    started = manta_node("start", "edge", "--background")
    assert started.returncode == 0, started.stderr
    assert "Nobody answers" in started.stdout
    status = manta_node("status", "edge")
    assert status.returncode == 7
    assert "unreachable" in status.stdout
    lab.start_manager()
    lab.wait_until(lambda: manta_node("status", "edge").returncode == 0)


def test_a_node_without_a_configuration_takes_it_from_variables(lab, manta_node: Command) -> None:
    """As the node's image starts it."""
    (lab.folder / "table.csv").write_text("1,2\n")
    variables = {
        "MANTA_NODE_TOKEN": lab.api().create_node_token("lab"),
        "MANTA_NODE_ALIAS": "boxed",
        "MANTA_NODE_ID": "random",
        "MANTA_NODE_MANAGER_HOST": "127.0.0.1",
        "MANTA_NODE_MANAGER_PORT": lab.file.nodes.rpartition(":")[2],
        "MANTA_NODE_ALLOW_UNSANDBOXED": "true",
        "MANTA_NODE_DATASETS": f"table={lab.folder}/table.csv",
    }
    wrong = manta_node("start", "--background", **variables, MANTA_NODE_ALIS="x")
    assert wrong.returncode == 11
    assert "did you mean MANTA_NODE_ALIAS?" in wrong.stderr
    made = manta_node.home / "nodes" / "default.toml"
    for name, value in (
        ("MANTA_NODE_ALLOW_UNSANDBOXED", "false"),
        ("MANTA_NODE_DATASETS", f"table={lab.folder}/none.csv"),
        ("MANTA_NODE_TOKEN", "half"),
    ):
        given = {**variables, "MANTA_NODE_RUNNER": "limits", name: value}
        refused = manta_node("start", "--background", **given)
        assert refused.returncode != 0
        assert "was not made: correct the MANTA_NODE_* variables" in refused.stderr
        assert not made.exists(), "what is corrected counts"
    try:
        started = manta_node("start", "--background", **variables)
        assert started.returncode == 0, started.stderr
        assert "was made from the MANTA_NODE_* variables" in started.stderr
        assert lab.api().get_node("boxed").datasets["table"].size == 4
        assert made.stat().st_mode & 0o777 == 0o600
        assert variables["MANTA_NODE_TOKEN"] not in made.read_text()
    finally:
        manta_node("stop")
    again = manta_node("start", "--background", **{**variables, "MANTA_NODE_ALIAS": "x"})
    assert again.returncode == 0, "the file and its own key are enough now"
    assert "default.toml counts, and MANTA_NODE_ALIAS says something else" in again.stderr
    manta_node("stop")


def test_in_the_foreground(lab, manta_node: Command) -> None:
    init(lab, manta_node)
    token = lab.api().create_node_token("lab")
    with Child(
        [sys.executable, "-m", "manta.node.command", "start", "edge"],
        stderr=subprocess.PIPE,
        text=True,
        env={**manta_node.environment, "MANTA_NODE_TOKEN": token},
    ) as process:
        assert process.stderr is not None
        said = ""
        while "Connected to the manager" not in said:
            said += process.stderr.readline()
        assert token.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(60) == 0, rest
    assert "Traceback" not in rest
    assert "Connected" in (manta_node.home / "state/nodes/edge/node.log").read_text()


@pytest.mark.parametrize("start", ["manta.node", "manta.node.command"])
def test_no_secret_of_its_environment_stays_there(lab, manta_node: Command, start: str) -> None:
    """However it is started, and wherever its token comes from."""
    init(lab, manta_node, "--token", "${OF_MY_OWN}")
    config = manta_node.home / "nodes" / "edge.toml"
    state = manta_node.home / "state" / "nodes" / "edge"
    state.mkdir(parents=True, mode=0o700)
    where = ["start", "edge"]
    if start == "manta.node":
        where = ["--config", str(config), "--state", str(state)]
    token = lab.api().create_node_token("lab")
    secrets = {"OF_MY_OWN": token, "MANTA_PASSPHRASE": "horse", "MANTA_TOKEN": "battery"}
    with Child(
        [sys.executable, "-m", start, *where],
        stderr=subprocess.PIPE,
        text=True,
        env={**manta_node.environment, **secrets},
    ) as process:
        assert process.stderr is not None
        while "Connected to the manager" not in process.stderr.readline():
            assert process.poll() is None
        variables = Path(f"/proc/{process.pid}/environ").read_bytes()
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait(60) == 0
    for secret in secrets.values():
        assert secret.encode() not in variables
    assert b"MANTA_HOME=" in variables


def test_following_the_log(lab, manta_node: Command) -> None:
    init(lab, manta_node)
    path = manta_node.home / "state" / "nodes" / "edge" / "node.log"
    path.parent.mkdir(parents=True)
    path.write_text("one\ntwo\nthree\n")
    with Child(
        [sys.executable, "-m", "manta.node.command", "logs", "edge", "-f", "-n", "2"],
        stdout=subprocess.PIPE,
        text=True,
        env=manta_node.environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "two\n"
        assert process.stdout.readline() == "three\n"
        with open(path, "a") as file:
            file.write("four\n")
        assert process.stdout.readline() == "four\n"
        path.rename(path.with_suffix(".log.1"))
        path.write_text("five\n")
        assert process.stdout.readline() == "five\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("status", "nobody"), 5, "There is no node 'nobody' on this machine"),
        (("logs", "nobody"), 5, "There is no node"),
        (("stop", "nobody"), 5, "`manta_node config init nobody` makes it"),
        (("start", "nobody"), 5, "config init nobody"),
        (("config", "show", "nobody"), 5, "no such configuration"),
        (("config", "show", "../x"), 2, "not a name for a configuration"),
        (("frobnicate",), 2, "No such command"),
        (("config", "init", "x", "--dataset", "oops"), 2, "not of the form NAME=PATH"),
        (("config", "init", "x", "--manager-port", "0"), 2, "is not in the range"),
        (("config", "init", "x", "--alias", "two words"), 2, "it must be a name"),
    ],
)
def test_wrong_usage(
    manta_node: Command, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = manta_node(*arguments)
    assert done.returncode == code
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not (manta_node.home / "nodes").exists()


def test_questions_on_a_terminal(manta_node: Command, tmp_path: Path) -> None:
    (tmp_path / "d.npy").write_bytes(b"")
    answers = [
        ("Token", ""),
        ("alias", "two words"),
        ("must be a name", "edge-7"),
        ("host", "tcp://m.lan"),
        ("without scheme", "m.lan"),
        ("port", "70000"),
        ("from 1 to 65535", ""),
        ("at a time", "many"),
        ("from 0 to 10000", "3"),
        ("dataset", "digits"),
        ("form NAME=PATH", f"digits={tmp_path}/d.npy"),
        ("no more", ""),
        ("Allow that", "y"),
    ]
    master, slave = pty.openpty()
    try:
        with Child(
            [sys.executable, "-m", "manta.node.command", "config", "init", "edge"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=manta_node.environment,
            start_new_session=True,
        ) as process:
            try:
                for question, answer in answers:
                    said = ""
                    while not said.endswith(": ") or question not in said:
                        said += os.read(master, 1000).decode()
                    os.write(master, f"{answer}\n".encode())
                assert process.wait(60) == 0, os.read(master, 10_000)
            finally:
                process.kill()
    finally:
        os.close(master)
        os.close(slave)
    text = (manta_node.home / "nodes" / "edge.toml").read_text()
    assert 'secured_token = "${MANTA_NODE_TOKEN}"' in text
    assert 'alias = "edge-7"' in text
    assert 'manager_host = "m.lan"' in text
    assert "max_concurrent_tasks = 3" in text
    assert f'digits = "{tmp_path}/d.npy"' in text
    assert "allow_unsandboxed = true" in text
