"""What of users' and strangers' messages is recorded: all acts, no secret, and no flood."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import msgspec
import pytest

from manta.audit.records import Record
from manta.manager.directory import SwarmEntry
from manta.manager.gateway.acts import BURST, LOOKS, MOST_SUMS, READS, WINDOW, Acts
from manta.manager.gateway.described import described, is_secret, name_of, of_answer
from manta.protocol.base import Password
from manta.protocol.enrolment import Enroll
from manta.protocol.node import FromNode
from manta.protocol.sign_in import Bind, CreateUserToken, SignedIn, SignIn
from manta.protocol.spec import ModuleSpec, SwarmSpec
from manta.protocol.tokens import TokenText
from manta.protocol.user import FromUser, SendSwarm, SetGlobal, StopSwarm
from manta.protocol.users import AddUser, ChangePassword
from manta.protocol.values import BlobRef, Inline

FROM_USERS = set(get_args(FromUser))
ACTS = {
    "AddUser", "Bind", "ChangePassword", "CreateCluster", "CreateNodeToken",
    "CreateRoleDefinition", "CreateUserToken", "DeleteCluster", "DeleteResults",
    "DeleteRoleDefinition", "DeleteUser", "GrantRole", "Logout", "PauseSwarm", "RemoveModule",
    "RemoveNode", "RemoveSwarm", "RequestNodeStop", "ResumeSwarm", "RevokeRole", "RevokeTokens",
    "RotateToken", "SendModule", "SendSwarm", "SetGlobal", "SetQuota", "ShareModule", "SignIn",
    "StartCluster", "StartSwarm", "StopCluster", "StopSwarm", "UpdateModule",
}  # fmt: skip


def record(act: str = "stop-swarm", who: str = "ada", **about: Any) -> Record:
    return Record(0.0, act, who, about=about)


def test_all_that_users_send_is_an_act_a_read_or_a_look() -> None:
    assert {message.__name__ for message in FROM_USERS - LOOKS - READS} == ACTS
    assert FROM_USERS | set(get_args(FromNode)) >= LOOKS | READS
    assert not LOOKS & READS


# --- what is told of a message ------------------------------------------------------------


def test_no_field_that_can_hold_a_secret_is_told() -> None:
    """By its name or its type: each is marked."""
    unmarked = []
    for message in {*FROM_USERS, Enroll}:
        for name, hint in get_type_hints(message, include_extras=True).items():
            suspect = name in ("password", "old", "new", "token", "secret", "key")
            if (suspect or hint in (Password, TokenText)) and not is_secret(hint):
                unmarked.append((message.__name__, name))
    assert unmarked == []


def test_of_secrets_and_values_nothing_is_told() -> None:
    secret = "hunter2 hunter2"
    said = [
        described(SignIn(secret, secret), None),
        described(Bind(secret), None),
        described(AddUser("ada@example.org", secret, admin=True), None),
        described(ChangePassword(secret, secret), None),
        described(SetGlobal("s", "tag", Inline(secret.encode())), None),
        of_answer(SignedIn("u1", "ada@example.org", secret, "bulk")),
    ]
    assert secret not in repr(said)
    assert said[2] == {"email": "ada@example.org", "admin": True}
    assert said[4] == {"swarm": "s", "tag": "tag", "bytes": len(secret)}
    assert said[5] == {"user_id": "u1", "email": "ada@example.org"}


def test_a_record_names_what_a_message_is_about() -> None:
    entry = SwarmEntry("s1", "fl", "c1")
    assert name_of(StopSwarm) == "stop-swarm"
    assert described(StopSwarm("fl", force=True), entry) == {
        "swarm_id": "s1", "swarm": "fl", "cluster_id": "c1", "force": True,
    }  # fmt: skip
    spec = SwarmSpec("fl", (), (ModuleSpec("m", BlobRef("d" * 64, 5)),))
    about = described(SendSwarm("lab", spec), None)
    assert about["swarm"] == "fl"
    assert about["modules"] == [{"module": "m", "digest": "d" * 64}]
    assert described(CreateUserToken("x" * 5000), None)["for_key"] == "x" * 300


# --- how much is recorded -----------------------------------------------------------------


def test_acts_are_recorded_one_by_one_and_a_flood_of_them_in_sum() -> None:
    acts = Acts()
    flood = [acts.each(record(swarm_id=f"s{n % 3}"), "ada", 0.0) for n in range(5000)]
    assert sum(map(len, flood)) == BURST
    assert acts.each(record(), "bo", 0.0) == [record()]  # somebody else's is not hidden by it
    sums = acts.due(WINDOW, 9.0)
    assert {one.about["swarm_id"] for one in sums} == {"s0", "s1", "s2"}
    assert sum(one.about["times"] for one in sums) == 5000 - BURST
    assert {(one.at, one.act, one.who) for one in sums} == {(9.0, "stop-swarm", "ada")}


def test_what_is_read_is_told_at_first_and_then_in_sum() -> None:
    acts = Acts()
    [first] = acts.in_sum(record("read-feed", feed="results"), "ada", 0.0, 3)
    assert first.about == {"feed": "results", "items": 3}
    assert acts.in_sum(record("read-feed", feed="results"), "ada", 1.0, 4) == []
    assert acts.in_sum(record("read-feed", feed="results"), "ada", 2.0, 5) == []
    assert acts.due(WINDOW - 1, 0.0) == []
    [told] = acts.due(WINDOW, 7.0)
    assert told.about == {"feed": "results", "times": 2, "items": 9, "seconds": WINDOW}
    assert acts.in_sum(record("read-feed", feed="results"), "ada", WINDOW + 1, 1) == []
    assert [one.about["times"] for one in acts.rest(WINDOW + 2, 0.0)] == [1]
    assert acts.due(10 * WINDOW, 0.0) == []
    assert len(acts.in_sum(record("read-feed", feed="results"), "ada", 10 * WINDOW, 1)) == 1


def test_a_flood_of_different_refusals_is_bounded() -> None:
    acts = Acts()
    told = []
    for number in range(100_000):
        one = msgspec.structs.replace(record("sign-in", "", account=f"a{number}"), outcome="bad")
        told += acts.in_sum(one, "", number / 1000)
    assert len(told) == MOST_SUMS
    sums = acts.due(WINDOW * 2, 0.0)
    assert len(sums) == 1
    assert sums[0].about["others"] is True
    assert sums[0].about["times"] == 100_000 - MOST_SUMS


@pytest.mark.parametrize("minutes", [1, 60, 24 * 60])
def test_a_flood_of_any_length_adds_few_records(minutes: int) -> None:
    acts, count = Acts(), 0
    for minute in range(minutes):
        for number in range(60):
            count += len(acts.in_sum(record("sign-in", "", account=f"a{number}"), "", minute * 60))
        count += len(acts.due(minute * 60, 0.0))
    assert count <= (minutes / 10 + 2) * (MOST_SUMS + 1)
