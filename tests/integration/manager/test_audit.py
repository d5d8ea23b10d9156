"""What users do is in the manager's audit log, under their names, and no secret is."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from manta.actors import Refused
from manta.audit import log as audit_log
from manta.audit.keys import SealKey
from manta.audit.log import AuditLog
from manta.audit.records import Record
from manta.audit.verify import read, verify
from manta.manager.audit import signing_seed
from manta.manager.home import Home
from manta.protocol.audit import TellLogHead
from manta.protocol.clusters import CreateCluster, CreateNodeToken, ListClusters, RemoveNode
from manta.protocol.codes import Code
from manta.protocol.quotas import SetQuota
from manta.protocol.sign_in import Bind, CreateUserToken, Logout, RotateToken, SignIn
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import (
    GetSwarm,
    GetTasks,
    ReadFeed,
    SendSwarm,
    SetGlobal,
    StartSwarm,
    StopSwarm,
    WaitSwarm,
)
from manta.protocol.users import AddUser, ChangePassword, GrantRole, ListUsers, RevokeTokens
from manta.protocol.values import Inline
from manta.testing import wait_until
from manta.testing.manager import Client

PASSWORDS = "correct-horse", "battery-staple", "never-right"
SPEC = SwarmSpec("one", (TaskSpec("task", "m"),), (ModuleSpec("m", None, image="none"),))


def records(home: Path) -> list[Record]:
    return [record for _, record in read(home / "audit")]


def told(home: Path, who: str) -> list[tuple[str, str]]:
    return [(one.act, one.outcome) for one in records(home) if one.who == who]


def about(home: Path, act: str, who: str = "") -> dict[str, object]:
    found = [one for one in records(home) if one.act == act and who in ("", one.who)]
    return found[-1].about


def public(home: Path) -> str:
    return SealKey(signing_seed(Home(home))).public


@pytest.fixture
def ada(bench, admin: Client) -> Client:
    admin.ask(AddUser("ada@lab", PASSWORDS[0]))
    admin.ask(GrantRole("ada@lab", "lab", "researcher"))
    client = bench.client()
    client.ask(SignIn("ada@lab", PASSWORDS[0]))
    return client


def test_an_act_is_on_the_disk_before_it_is_answered(bench, admin: Client) -> None:
    admin.ask(CreateCluster("mine"))
    [made] = [one for one in records(bench.home) if one.act == "create-cluster"]
    assert (made.who, made.outcome, made.about["name"]) == ("me@localhost", "done", "mine")
    assert made.about["id"]
    assert abs(made.at - time.time()) < 60
    with pytest.raises(Refused):
        admin.ask(CreateCluster("mine"))
    wait_until(lambda: ("create-cluster", Code.NAME_TAKEN) in told(bench.home, "me@localhost"))


def test_what_a_user_does_is_there_under_the_users_name(bench, ada: Client) -> None:
    swarm = ada.ask(SendSwarm("lab", SPEC, wait=True))
    ada.ask(StartSwarm(swarm.swarm_id))
    ada.ask(SetGlobal(swarm.swarm_id, "g", Inline(b"secret value")))
    ada.ask(GetSwarm(swarm.swarm_id))
    ada.ask(ListClusters())
    for _ in range(5):
        ada.ask(GetTasks(swarm.swarm_id))
    ada.ask(ReadFeed(swarm.swarm_id, "events"))
    ada.ask(StopSwarm(swarm.swarm_id, force=True))
    ada.ask(WaitSwarm(swarm.swarm_id, 5.0))
    for message in (ListUsers(), CreateNodeToken("lab"), RemoveNode("node-1")):
        with pytest.raises(Refused):
            ada.ask(message)
    bench.stop()
    found = told(bench.home, "ada@lab")
    assert found[:6] == [
        ("sign-in", "done"),
        ("send-swarm", "done"),
        ("start-swarm", "done"),
        ("set-global", "done"),
        ("get-tasks", "done"),
        ("read-feed", "done"),
    ]
    assert ("stop-swarm", "done") in found
    for act in ("list-users", "create-node-token", "remove-node"):
        assert (act, "forbidden") in found
    assert not {act for act, _ in found} & {"get-swarm", "list-clusters", "wait-swarm"}
    assert about(bench.home, "send-swarm")["modules"] == [{"module": "m", "image": "none"}]
    stopped = about(bench.home, "stop-swarm")
    assert (stopped["swarm_id"], stopped["swarm"], stopped["force"]) == (
        swarm.swarm_id, "one", True,
    )  # fmt: skip
    assert about(bench.home, "get-tasks")["times"] == 4
    assert verify(bench.home / "audit", public(bench.home)).flaws == []


def test_the_administrators_acts_and_the_managers_own_are_there(bench, admin: Client) -> None:
    admin.ask(AddUser("bo@lab", PASSWORDS[0]))
    admin.ask(GrantRole("bo@lab", "lab", "viewer"))
    admin.ask(SetQuota("clusters", 3, user="bo@lab"))
    admin.ask(CreateNodeToken("lab", uses=2))
    admin.ask(RemoveNode("node-2"))
    admin.ask(RevokeTokens("bo@lab"))
    bench.restart()
    bench.stop()
    found = records(bench.home)
    assert [one.act for one in found] == [
        "log-begun", "manager-started", "first-user", "add-user", "grant-role", "set-quota",
        "create-node-token", "remove-node", "revoke-tokens", "manager-stopped",
        "manager-started", "manager-stopped",
    ]  # fmt: skip
    assert about(bench.home, "first-user")["email"] == "me@localhost"
    assert about(bench.home, "grant-role") | {"user": "bo@lab", "role": "viewer"} == about(
        bench.home, "grant-role"
    )
    assert about(bench.home, "remove-node")["node"] == "node-2"


def test_no_password_token_key_or_value_is_in_the_log(bench, admin: Client, ada: Client) -> None:
    ada.ask(ChangePassword(PASSWORDS[0], PASSWORDS[1]))
    token = ada.ask(CreateUserToken()).token
    other = bench.client()
    other.ask(Bind(token))
    rotated = other.ask(RotateToken()).token
    node_token = admin.ask(CreateNodeToken("lab")).token
    stranger = bench.client()
    for email, password in (("ada@lab", PASSWORDS[2]), (PASSWORDS[2], PASSWORDS[2])):
        with pytest.raises(Refused):
            stranger.ask(SignIn(email, password))
    other.ask(Logout())
    bench.stop()
    content = b"".join(path.read_bytes() for path in (bench.home / "audit").iterdir())
    seed = signing_seed(Home(bench.home))
    secrets = [*PASSWORDS, token, rotated, node_token, seed.hex(), bench.admin_keys.secret]
    secrets += [Home(bench.home).key.read_text().splitlines()[-1].split(" = ")[1]]
    secrets += [part for one in (token, rotated, node_token) for part in one.split(".")[1:]]
    assert [one for one in secrets if one.encode() in content] == []
    assert about(bench.home, "sign-in", "ada@lab")["from"] == "127.0.0.1"
    failed = [one.about for one in records(bench.home) if one.outcome == Code.BAD_CREDENTIALS]
    assert {one.get("account") for one in failed} == {"ada@lab", None}


def test_a_flood_of_strangers_adds_a_few_records(bench) -> None:
    for _ in range(3):
        stranger = bench.client()
        for _ in range(30):
            with pytest.raises(Refused):
                stranger.ask(ListUsers())
    bench.stop()
    from_strangers = [one for one in records(bench.home) if one.act == "list-users"]
    assert [one.about.get("times", 1) for one in from_strangers] == [1, 89]
    assert {one.outcome for one in from_strangers} == {Code.NOT_SIGNED_IN}


def test_while_the_disk_takes_no_record_acts_are_answered_and_recorded_later(
    bench, admin: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(audit_log, "RETRY", 0.05)
    real = AuditLog._append

    def full(self: AuditLog, path: Path, size: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(AuditLog, "_append", full)
    admin.ask(CreateCluster("first"))
    admin.ask(CreateCluster("second"))
    assert "cannot be written: No space left on device; make room on that disk" in caplog.text
    assert told(bench.home, "me@localhost") == []
    monkeypatch.setattr(AuditLog, "_append", real)
    wait_until(lambda: told(bench.home, "me@localhost") == [("create-cluster", "done")] * 2)
    assert verify(bench.home / "audit", public(bench.home)).flaws == []


def test_the_ends_of_nodes_logs_are_kept_and_answered_with_its_own(
    bench, caplog: pytest.LogCaptureFixture
) -> None:
    node = bench.client(bench.node_keys[0], at=bench.nodes_at)
    key = "a" * 64
    head = node.ask(TellLogHead(7, "d" * 64, key))
    kept = about(bench.home, "log-head")
    assert (kept["node"], kept["number"], kept["digest"], kept["key"]) == (
        "node-1", 7, "d" * 64, key,
    )  # fmt: skip
    found = verify(bench.home / "audit", public(bench.home))
    assert (found.head.number, found.head.digest, found.key) == (
        head.number, head.digest, head.key,
    )  # fmt: skip
    assert node.ask(TellLogHead(9, "e" * 64, key)) == head  # too soon to be kept
    assert len([one for one in records(bench.home) if one.act == "log-head"]) == 1


def test_a_nodes_log_that_went_back_is_told(
    bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("manta.manager.gateway.recorder.HEADS", 0.0)
    node = bench.client(bench.node_keys[0], at=bench.nodes_at)
    node.ask(TellLogHead(7, "d" * 64, "a" * 64))
    node.ask(TellLogHead(8, "d" * 64, "a" * 64))
    assert "log-went-back" not in [one.act for one in records(bench.home)]
    node.ask(TellLogHead(3, "e" * 64, "a" * 64))
    assert about(bench.home, "log-went-back")["was"] == 8
    assert "went back from record 8 to 3" in caplog.text
