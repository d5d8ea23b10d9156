"""The registry of modules, by the SDK and the command line, on a real manager and a real node."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from manta import AsyncUserAPI, Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import Session
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.protocol.sign_in import SignIn
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import SendSwarm, SwarmInfo
from manta.protocol.values import BlobRef
from manta.testing import wait_until
from manta.testing.clusters import client, running
from manta.transports.blobs.digests import digest_of
from manta.transports.codec.values import encode
from manta.transports.security.keys import KeyPair
from tests.support.lab import Lab

PASSWORD = "correct horse"


def says(what: str) -> str:
    return f"""
from manta.light import World

def main():
    World().results.add("said", {what!r})
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        # Threads and files that a first use opens belong to all tests.
        warm = api.send_module(Module(says("warm"), name="warm"))
        api.check_swarm(CLUSTER, swarm_of("warm"))
        api.remove_module(warm)
        yield api


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def _empty(api: UserAPI) -> Iterator[None]:
    yield
    for module in api.list_modules():
        api.remove_module(module)


def swarm_of(*modules: Module | str) -> Swarm:
    class Says(Swarm):
        def execute(self) -> list[Task]:
            return [Task(module, method="any") for module in modules]

    return Says()


def said(api: UserAPI, *modules: Module | str) -> list[str]:
    """What the tasks say that run these."""
    deployed = api.deploy_swarm(CLUSTER, swarm_of(*modules))
    ended = api.wait_swarm(deployed, timeout=60)
    assert ended.status == "COMPLETED", ended
    return sorted(api.get_swarm_results(deployed).values())


def test_sent_read_and_removed(api: UserAPI, here: Path) -> None:
    (here / "worker.py").write_text(says("plain"))
    sent = api.send_module(Module("worker.py", "python:3.12", datasets=["d"]))
    assert (sent.name, sent.version, sent["image"]) == ("worker", None, "python:3.12")
    assert sent.datasets == ("d",)
    again = api.send_module(Module("worker.py", "python:3.12", datasets=["d"]))
    assert (again.id, again.created_at) == (sent.id, sent.created_at)
    for name in ("worker", sent, sent.id[:9], str(sent.digest)[:20]):
        assert api.get_module(name).id == sent.id
    assert api.list_module_ids() == [sent.id]
    assert [one.id for one in api.stream_modules()] == [sent.id]
    assert list(api.stream_and_fetch_modules()) == api.list_modules()
    api.remove_module(sent)
    assert api.list_modules() == []
    with pytest.raises(errors.NotFound, match="There is no module 'worker'"):
        api.get_module("worker")
    with pytest.raises(errors.NotFound):
        api.remove_module("worker")


def test_a_swarm_runs_what_it_names(api: UserAPI, here: Path) -> None:
    api.send_module(Module(says("one"), name="worker", version="1.0.0"))
    api.send_module(Module(says("one and a half"), name="worker", version="1.5.0"))
    api.send_module(Module(says("two"), name="worker", version="2.0.0"))
    (here / "worker.py").write_text(says("the file"))
    assert said(api, "worker") == ["two"]
    assert said(api, Module("worker", version="1.0.0")) == ["one"]
    ranged = Module("worker", version=">=1.0,<2")
    assert said(api, ranged, Module("worker.py")) == ["one and a half", "the file"]
    plan = api.check_swarm(CLUSTER, swarm_of(ranged))
    assert [at.task for at in plan.placements] == ["worker"]
    with pytest.raises(errors.ModuleError, match=r"it has 1\.0\.0, 1\.5\.0, 2\.0\.0"):
        api.check_swarm(CLUSTER, swarm_of(Module("worker", version=">=3")))
    with pytest.raises(errors.ModuleError, match=r"Tried .*none of that name.*gone\.py"):
        api.deploy_swarm(CLUSTER, swarm_of("gone"))


def test_a_name_with_a_version_is_the_registered_one_where_a_folder_of_that_name_lies(
    api: UserAPI, here: Path
) -> None:
    (here / "worker").mkdir()
    (here / "worker" / "__init__.py").write_text(says("folder"))
    named = Module("worker", version="1.0.0")
    assert said(api, named) == ["folder"], "which registers it"
    api.send_module(Module(says("registered"), name="worker", version="1.1.0"))
    newer = Module("worker", version="1.1.0")
    assert said(api, newer) == ["registered"]
    (note,) = api.check_swarm(CLUSTER, swarm_of(newer)).notes
    assert note.startswith(f"Module worker 1.1.0 is the registered one, not {here}/worker: write")
    assert said(api, "worker", "./worker", "worker/") == ["folder"] * 3
    with pytest.raises(errors.NameTaken, match="never changes"):
        api.check_swarm(CLUSTER, swarm_of(Module("./worker", name="worker", version="1.1.0")))


def test_what_a_task_says_of_a_registered_module_is_checked(api: UserAPI, here: Path) -> None:
    code = (
        "from manta.light import World\nclass Worker:\n"
        "    def run(self):\n        World().barrier()\n"
    )
    api.send_module(Module(code, name="known", version="1.0.0"))

    def swarm(**arguments: object) -> Swarm:
        class Single(Swarm):
            def execute(self) -> Task:
                return Task(Module("known", version="1.0.0"), **arguments)  # type: ignore[arg-type]

        return Single()

    assert api.check_swarm(CLUSTER, swarm(class_name="Worker")).problems == ()
    with pytest.raises(errors.InvalidSwarm) as raised:
        api.check_swarm(CLUSTER, swarm(class_name="Wroker"))
    assert str(raised.value) == (
        "Task 'known' has class_name='Wroker', which is not in the registered module 'known' "
        "1.0.0 (it has Worker): correct class_name. Did you mean 'Worker'?"
    )
    (problem,) = api.check_swarm(CLUSTER, swarm(replicas=1000)).problems
    assert "all its 1000 instances wait for each other" in problem


def test_other_content_under_a_version_is_refused_wherever_it_comes_from(
    api: UserAPI, here: Path
) -> None:
    first = Module(says("first"), name="worker", version="1.0.0")
    other = Module(says("other"), name="worker", version="1.0.0")
    assert said(api, first) == ["first"]  # which registers it
    assert said(api, first) == ["first"]
    sending = [
        lambda: api.send_module(other),
        lambda: api.check_swarm(CLUSTER, swarm_of(other)),
        lambda: api.deploy_swarm(CLUSTER, swarm_of(other)),
        lambda: api.update_module("worker", Module(says("other"))),
    ]
    for send in sending:
        with pytest.raises(errors.NameTaken, match="never changes"):
            send()
    api.remove_module("worker", "1.0.0")
    assert said(api, other) == ["other"]


def test_without_a_version_it_is_updated_in_place(api: UserAPI) -> None:
    sent = api.send_module(Module(says("old"), name="worker"))
    pending = api.send_swarm(CLUSTER, swarm_of("worker"))
    updated = api.update_module("worker", Module(says("new")))
    assert (updated.id, updated.name) == (sent.id, "worker")
    assert updated.digest != sent.digest
    assert said(api, "worker") == ["new"]
    api.remove_module("worker")
    api.start_swarm(pending)
    assert api.wait_swarm(pending, timeout=60).status == "COMPLETED"
    assert api.get_swarm_results(pending).values() == ["old"]
    again = api.send_module(Module(says("old"), name="worker"))
    with pytest.raises(errors.InvalidRequest, match="next version"):
        api.update_module(again, Module(says("new"), version="1.0.0"))


def test_a_package_folder_with_helpers_and_what_is_included(api: UserAPI, here: Path) -> None:
    folder = here / "trainer"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from manta.light import World\nfrom trainer.helper import WORD\nfrom common import words"
        "\n\ndef main():\n    World().results.add('said', WORD + words.MORE)\n"
    )
    (folder / "helper.py").write_text("WORD = 'helped'\n")
    (folder / "requirements.txt").write_text("numpy>=1\n")
    (here / "common").mkdir()
    (here / "common" / "words.py").write_text("MORE = ' and shared'\n")
    module = Module("trainer", "pytorch", include=["common/"])
    assert (module.name, module.image) == ("trainer", "manta_light:pytorch")
    assert said(api, module) == ["helped and shared"]
    assert api.send_module(module).requirements == ("numpy>=1",)
    (here / "elsewhere").mkdir()
    os.chdir(here / "elsewhere")
    assert said(api, "trainer") == ["helped and shared"]


def test_a_stream_that_follows_tells_of_what_is_new_and_of_what_was_sent_again(
    api: UserAPI, cluster: LocalCluster
) -> None:
    api.send_module(Module(says("first"), name="first"))
    stream = api.stream_modules(follow=True)
    assert next(stream).name == "first"
    api.send_module(Module(says("second"), name="second", version="1.0.0"))
    assert next(stream).version == "1.0.0"
    updated = api.update_module("first", Module(says("other")))
    assert next(stream) == updated
    assert {module.name for module in api.stream_modules()} == {"first", "second"}

    async def followed() -> list[str]:
        names = []
        target = Target(HOST, cluster.user_port, "x", server_key=cluster.manager_keys.public)
        async with AsyncUserAPI.over(Session(target, cluster.keys)) as other:
            async for module in other.stream_modules(follow=True):
                names.append(module.name)
                if len(names) == 2:
                    await other.send_module(Module(says("third"), name="third"))
                if module.name == "third":
                    return names
        raise AssertionError("it ended")

    names = asyncio.run(asyncio.wait_for(followed(), 30))
    assert (set(names[:2]), names[2:]) == ({"first", "second"}, ["third"])


@pytest.mark.parametrize("path", ["../evil.py", "/evil.py", "a/../../evil.py", "a//evil.py", ""])
def test_a_package_that_leads_out_of_its_folder_is_refused_by_the_node(
    api: UserAPI, cluster: LocalCluster, path: str
) -> None:
    """As only a client of one's own making sends it."""
    value = encode({"__entry__": "worker.py", "worker.py": says("ran").encode(), path: b"evil"})
    digest = digest_of(*value.parts())
    api.connection.push({digest: value})
    package = BlobRef(digest, value.nbytes)
    spec = SwarmSpec(
        "evil", (TaskSpec("task", "worker", method="any"),), (ModuleSpec("worker", package),)
    )
    sent = api.connection.ask(SendSwarm(CLUSTER, spec), SwarmInfo)
    api.start_swarm(sent.swarm_id)
    ended = api.wait_swarm(sent.swarm_id, timeout=60)
    assert ended.status == "FAILED"
    (error, *_) = api.collect_errors(ended)
    assert f"holds a path that is not allowed: {path!r}" in error.sentence
    assert not list(cluster.folder.rglob("evil.py"))
    assert not Path("/evil.py").exists()


def test_what_each_role_may(api: UserAPI, cluster: LocalCluster) -> None:
    sent = api.send_module(Module(says("shared"), name="shared", version="1.0.0"))
    people = {}
    target = Target(HOST, cluster.user_port, "t", server_key=cluster.manager_keys.public)
    try:
        for role in ("viewer", "operator", "researcher", "nobody"):
            api.add_user(f"{role}@lab", PASSWORD)
            if role != "nobody":
                api.grant_role(f"{role}@lab", CLUSTER, role)
            people[role] = UserAPI.over(Session(target, KeyPair.generate()))
            people[role].connection.sign_in(SignIn(f"{role}@lab", PASSWORD))
        for role in ("viewer", "operator", "researcher"):
            with pytest.raises(errors.NotFound, match="no module 'shared'"):
                people[role].get_module("shared")
            assert people[role].list_modules() == []
        shared = api.share_module(sent, CLUSTER)
        assert [one.cluster_name for one in shared.shared] == [CLUSTER]
        for role in ("viewer", "operator", "researcher"):
            assert people[role].get_module("shared").id == sent.id
            with pytest.raises(errors.Forbidden):
                people[role].remove_module("shared")
        for role in ("viewer", "operator"):
            with pytest.raises(errors.Forbidden, match=r"module\.write"):
                people[role].send_module(Module(says("x"), name="x"))
        with pytest.raises(errors.Forbidden, match=r"module\.read.*without a role"):
            people["nobody"].list_modules()
        researcher = people["researcher"]
        assert said(researcher, Module("shared", version="==1.*")) == ["shared"]
        with pytest.raises(errors.NameTaken, match="another user's"):
            researcher.send_module(Module(says("mine"), name="shared", version="1.1.0"))
        mine = researcher.send_module(Module(says("mine"), name="shared"))
        assert said(researcher, "shared") == ["mine"]
        assert said(api, "shared") == ["shared"]
        researcher.remove_module(mine)
        # The swarms that were sent with it keep it.
        assert api.unshare_module("shared", CLUSTER, ">=1").shared == ()
        for name in ("shared", sent):
            with pytest.raises(errors.NotFound, match="There is no module"):
                researcher.get_module(name)
        api.remove_module(sent)
    finally:
        for person in people.values():
            person.close()
        for role in people:
            api.delete_user(f"{role}@lab")


def test_by_commands(lab: Lab, here: Path) -> None:
    (here / "worker.py").write_text(says("pushed"))
    assert "worker 1.0.0" in lab("module", "push", here / "worker.py", "--version", "1.0.0")
    lab("module", "push", here / "worker.py", "--version", "1.1.0")
    assert "1.1.0" in lab("module", "show", "worker")
    assert "1.0.0" in lab("module", "show", "worker", "--version", "<1.1")
    assert len(lab("module", "list").splitlines()) == 3
    (here / "worker.py").write_text(says("other"))
    taken = lab.attempt("module", "push", here / "worker.py", "--version", "1.0.0")
    unclear = lab.attempt("module", "rm", "worker")
    gone = lab.attempt("module", "show", "worker", "--version", ">=2")
    wrong = lab.attempt("module", "push", here / "worker.py", "--version", "one")
    missing = lab.attempt("module", "push", here)
    codes = [done.returncode for done in (taken, unclear, gone, wrong, missing)]
    assert codes == [8, 5, 5, 4, 4], [taken, unclear, gone, wrong, missing]
    assert "without __init__.py" in missing.stderr
    lab("module", "rm", "worker", "--version", "1.0.0")
    assert "Removed" in lab("module", "rm", "worker")
    assert "No modules yet" in lab("module", "list")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path / "home")
    try:
        started = lab.start()
        lab.sign_in(started.stdout)
        yield lab
    finally:
        lab.attempt("manager", "stop")


def test_what_was_sent_is_there_after_the_manager_was_killed(lab: Lab, here: Path) -> None:
    (here / "worker.py").write_text(says("kept"))
    sent = json.loads(lab("module", "push", here / "worker.py", "--version", "1.0.0", "--json"))
    pid = json.loads((lab.home / "manager" / "manager.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(
        lambda: (
            json.loads(lab.attempt("manager", "status", "--json").stdout).get("pid")
            not in (None, pid)
        )
    )  # it is started again
    assert json.loads(lab("module", "show", "worker", "--json")) == sent
    lab("cluster", "create", "lab")
    (here / "elsewhere").mkdir()
    (here / "elsewhere" / "swarm.py").write_text(
        "from manta import Module, Swarm, Task\n\nclass Named(Swarm):\n"
        "    def execute(self):\n        return Task(Module('worker', version='~=1.0'))\n"
    )
    os.chdir(here / "elsewhere")
    deployed = json.loads(lab("deploy", "--cluster", "lab", "swarm.py", "--wait", "--json"))
    assert deployed["status"] == "ACTIVE"
    (here / "worker.py").write_text(says("changed"))
    taken = lab.attempt("module", "push", here / "worker.py", "--version", "1.0.0")
    assert taken.returncode == 8
