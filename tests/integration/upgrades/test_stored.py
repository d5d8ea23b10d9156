"""What an earlier version left on disk when it was killed: this one goes on from there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.testing import wait_until
from tests.support.lab import Lab
from tests.support.stored import VERSIONS, Stored, holds


class Successor(Lab):
    """The home of an earlier version, whose manager and nodes this version has started."""

    def __init__(self, stored: Stored) -> None:
        super().__init__(stored.home)
        self.stored = stored
        self.configs = sorted((self.home / "nodes").glob("*.toml"))
        for config in self.configs:  # the ports of then may be taken
            port = f"manager_port = {self.ports[0]}"
            config.write_text(re.sub(r"manager_port = \d+", port, config.read_text()))

    def json(self, line: str) -> Any:
        said = self(*line.split(), "--json")
        try:
            return json.loads(said)
        except ValueError:
            return [json.loads(each) for each in said.splitlines()]

    def node(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "manta.node.command", *arguments],
            env={"PATH": "/usr/bin:/bin", "MANTA_HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def __enter__(self) -> Successor:
        started = self.start()
        assert started.returncode == 0, started.stderr
        assert "password" not in started.stdout, "it knows its users"
        for config in self.configs:
            self.node("start", config.stem, "--background")
        (cluster,) = self.json("cluster list")
        wait_until(lambda: self("node", "list", cluster["name"]).count(" CONNECTED ") == 2)
        return self

    def __exit__(self, *_: object) -> None:
        for config in self.configs:
            self.node("stop", config.stem)
        self("manager", "stop")


@pytest.fixture(scope="module", params=VERSIONS)
def place(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Successor]:
    with Successor(Stored(request.param, tmp_path_factory.mktemp("stored"))) as place:
        yield place


@pytest.fixture
def api(place: Successor, monkeypatch: pytest.MonkeyPatch) -> Iterator[UserAPI]:
    """As the profile has it."""
    monkeypatch.setenv("MANTA_HOME", str(place.home))
    with UserAPI(host="127.0.0.1", port=place.users) as api:
        yield api


def test_a_swarm_that_completed_is_what_it_was(place: Successor, api: UserAPI) -> None:
    done, said = place.stored.done, place.stored.said
    (overview,) = (swarm for swarm in place.json("ps") if swarm["swarm_id"] == done)
    assert holds(overview, said["ps"])
    for command in ("results", "globals", "logs", "metrics", "explain"):
        assert holds(place.json(f"{command} {done}"), said[command]), command
    assert {int(result.value[0]) for result in api.select_results(done, "large")} == {0, 1}
    assert np.array_equal(api.select_global(done, "large"), np.zeros(20_000))
    outputs = [task.output for task in api.get_tasks(done)]
    assert sorted(output["rank"] for output in outputs) == [0, 0, 1, 1]
    assert all(output["pair"] == [1, 2.5] for output in outputs)


def test_a_swarm_that_was_under_way_goes_on_and_completes(place: Successor, api: UserAPI) -> None:
    swarm = place.stored.under_way
    api.set_global(swarm, "go", True)
    ended = api.wait_swarm(swarm, timeout=90)
    assert (ended.status, ended.iteration) == ("COMPLETED", 4), ended.reason
    totals = {
        (result.iteration, result.value)
        for result in api.get_swarm_results(swarm, "total")
        if result.counts
    }
    sums = [1, 3, 6, 10, 15]  # also of what tasks had kept on their nodes
    assert totals == {(i, total * 10**rank) for i, total in enumerate(sums) for rank in (0, 1)}
    tasks = api.get_tasks(swarm)
    assert sum(task.status == "FINISHED" for task in tasks) == 10
    assert {task.iteration for task in tasks if task.attempt} == {2}, "those that were killed"
    # What the nodes had not told yet when they were killed is told, and once.
    for attempt in (0, 1):
        told = [
            m.step for m in api.get_metrics(swarm) if (m.attempt, m.node_alias) == (attempt, "a")
        ]
        assert told == list(range(len(told)))
        assert len(told) >= 6
    waited = [r for r in api.select_results(swarm, "waited", attempts="all") if not r.counts]
    assert {int(result.value[-1]) for result in waited} >= set(range(6))


def test_users_sign_in_as_before(place: Successor, tmp_path: Path) -> None:
    # By the profile's token and key, as all commands here.
    assert holds(place.json("user list"), place.stored.said["user list"])
    second = ("--email", "second@localhost", "--password-stdin", f"--server-key={place.key()}")
    signed = place.attempt(
        "sign-in", *second, said=place.stored.said["password"], MANTA_HOME=tmp_path
    )
    assert signed.returncode == 0, signed.stderr


def test_a_registered_module_runs(place: Successor, api: UserAPI) -> None:
    assert holds(place.json("module list"), place.stored.said["module list"])

    class Registered(Swarm):
        def execute(self) -> Task:
            return Task(Module("module", version="1.2.0"))()

    (cluster,) = api.list_clusters()
    ended = api.wait_swarm(api.deploy_swarm(cluster, Registered()), timeout=60)
    assert ended.status == "COMPLETED", ended.reason
    assert {task.output for task in api.get_tasks(ended)} == {"registered"}


def test_after_a_killed_up_another_starts_and_stops(place: Successor) -> None:
    home = place.stored.up
    for words in (["--nodes", "0", "--background"], ["--stop"]):
        done = place.attempt("up", *words, MANTA_HOME=home, MANTA_PORT="")
        assert done.returncode == 0, done.stderr
    assert not (home / "up.json").exists()
