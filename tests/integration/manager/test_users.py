"""Users, roles and the ends of tokens, on a real manager."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from msgspec.structs import replace

from manta.actors import ActorError, Refused
from manta.manager.auth import limits, passwords
from manta.manager.auth.rights import Right
from manta.manager.gateway import listeners
from manta.protocol.clusters import (
    CreateCluster,
    CreateNodeToken,
    DeleteCluster,
    GetCluster,
    GetNode,
    ListClusters,
    ListNodes,
    RemoveNode,
)
from manta.protocol.codes import Code
from manta.protocol.sign_in import Bind, CreateUserToken, Logout, RotateToken, SignIn, WhoAmI
from manta.protocol.spec import ModuleSpec, SwarmSpec, TaskSpec
from manta.protocol.user import GetSwarm, ListSwarms, SendSwarm, StartSwarm, WaitSwarm
from manta.protocol.users import (
    AddUser,
    ChangePassword,
    CreateRoleDefinition,
    DeleteRoleDefinition,
    DeleteUser,
    GetUser,
    GrantRole,
    ListRoles,
    ListUsers,
    RevokeRole,
)
from manta.testing import wait_until
from manta.testing.manager import Client
from manta.transports.errors import DownReason

PASSWORD = "correct-horse"
SPEC = SwarmSpec("one", (TaskSpec("task", "m"),), (ModuleSpec("m", None, image="none"),))


@pytest.fixture
def person(bench, admin):
    """A client that is signed in as a user, who has a role in the cluster `lab` or none."""

    def make(name: str, role: str | None = None):
        email = f"{name}@lab"
        admin.ask(AddUser(email, PASSWORD))
        if role is not None:
            admin.ask(GrantRole(email, "lab", role))
        client = bench.client()
        client.token = client.ask(SignIn(email, PASSWORD)).token
        return client

    return make


# What each role may do with the objects of a cluster. None: it is allowed.
HIDDEN = {"cluster": Code.UNKNOWN_CLUSTER, "node": Code.UNKNOWN_NODE, "swarm": Code.UNKNOWN_SWARM}
NEEDS = [
    (GetCluster("lab"), "cluster", {"viewer", "researcher", "operator", "owner"}),
    (ListNodes("lab"), "cluster", {"viewer", "researcher", "operator", "owner"}),
    (ListSwarms("lab"), "cluster", {"viewer", "researcher", "operator", "owner", "watcher"}),
    (GetNode("node-1"), "node", {"viewer", "researcher", "operator", "owner"}),
    (GetSwarm("one"), "swarm", {"viewer", "researcher", "operator", "owner", "watcher"}),
    (CreateNodeToken("lab"), "cluster", {"operator", "owner"}),
    (SendSwarm("lab", replace(SPEC, name="two"), wait=True), "cluster", {"researcher", "owner"}),
    (RevokeRole("viewer@lab", "lab"), "cluster", {"owner"}),
    (RemoveNode("node-1"), "node", {"operator", "owner"}),
    (DeleteCluster("lab"), "cluster", {"owner"}),
]


def test_a_role_allows_what_the_table_says_and_a_foreign_cluster_does_not_exist(
    admin, person
) -> None:
    admin.ask(SendSwarm("lab", SPEC, wait=True))
    admin.ask(CreateRoleDefinition("watcher", (Right.SWARM_READ,)))
    clients = {
        role: person(role, role)
        for role in ("viewer", "researcher", "operator", "owner", "watcher")
    }
    clients["none"] = person("none")
    clients["none"].ask(CreateCluster("other"))
    seen = {}
    for message, what, allowed in NEEDS:
        for role, client in clients.items():
            if role in allowed:
                continue
            seen[type(message).__name__, role] = client.refusal(message).code
            expected = HIDDEN[what] if role == "none" else Code.FORBIDDEN
            assert seen[type(message).__name__, role] == expected, (message, role)
    for message, _, allowed in NEEDS[:7]:
        for role in sorted(allowed):
            assert clients[role].ask(message), (message, role)
    assert [one.name for one in clients["none"].ask(ListClusters()).clusters] == ["other"]
    assert clients["none"].ask(ListSwarms()).swarms == ()
    clients["operator"].ask(RemoveNode("node-1"))
    clients["owner"].ask(RevokeRole("viewer@lab", "lab"))
    assert clients["viewer"].refusal(GetCluster("lab")).code == Code.UNKNOWN_CLUSTER


def test_what_administrators_alone_may(person) -> None:
    owner = person("owner", "owner")
    for message in (
        ListUsers(),
        AddUser("x@y", PASSWORD),
        DeleteUser("me@localhost"),
        CreateRoleDefinition("x", (Right.SWARM_READ,)),
        DeleteRoleDefinition("x"),
        GetUser("me@localhost"),
    ):
        assert owner.refusal(message).code == Code.FORBIDDEN
    assert owner.ask(GetUser()).grants[0].role == "owner"


def test_one_key_may_come_by_many_connections_at_once(bench, person) -> None:
    first = person("parallel", "viewer")
    others = [bench.client(keys=first.keys) for _ in range(8)]
    for other in others:
        other.connection.wait_up(60.0)
    asked = [other.gateway.ask_future(Bind(first.token), timeout=10.0) for other in others]
    assert {future.result().email for future in asked} == {"parallel@lab"}
    assert {other.ask(WhoAmI()).email for other in (first, *others)} == {"parallel@lab"}


def test_the_last_owner_and_the_last_administrator_stay(admin, person) -> None:
    assert admin.refusal(DeleteUser("me@localhost")).code == Code.WRONG_STATE
    owner = person("owner")
    owner.ask(CreateCluster("mine"))
    for message in (
        RevokeRole("owner@lab", "mine"),
        GrantRole("owner@lab", "mine", "viewer"),
        DeleteUser("owner@lab"),
    ):
        refusal = admin.refusal(message)
        assert refusal.code == Code.WRONG_STATE
        assert "last owner" in refusal.sentence
    owner.ask(DeleteCluster("mine"))
    admin.ask(DeleteUser("owner@lab"))


def test_nobody_grants_or_takes_more_than_he_has(admin, person) -> None:
    admin.ask(CreateRoleDefinition("doorman", (Right.CLUSTER_READ, Right.ROLE_GRANT)))
    doorman = person("doorman", "doorman")
    assert doorman.refusal(GrantRole("doorman@lab", "lab", "owner")).code == Code.FORBIDDEN
    assert doorman.refusal(RevokeRole("me@localhost", "lab")).code == Code.FORBIDDEN


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (AddUser("no address", PASSWORD), Code.INVALID),
        (AddUser("a@b", "short"), Code.INVALID),
        (AddUser("ME@localhost", PASSWORD), Code.NAME_TAKEN),
        (GrantRole("me@localhost", "lab", "king"), Code.UNKNOWN_ROLE),
        (GrantRole("nobody", "lab", "owner"), Code.UNKNOWN_USER),
        (RevokeRole("me@localhost", "nowhere"), Code.UNKNOWN_CLUSTER),
        (CreateRoleDefinition("owner", (Right.SWARM_READ,)), Code.NAME_TAKEN),
        (CreateRoleDefinition("x", ("swarm.eat",)), Code.INVALID),
        (CreateRoleDefinition("x", ()), Code.INVALID),
        (DeleteRoleDefinition("owner"), Code.INVALID),
        (DeleteRoleDefinition("x"), Code.UNKNOWN_ROLE),
    ],
)
def test_bad_input_is_one_sentence(admin, message, code) -> None:
    refusal = admin.refusal(message)
    assert refusal.code == code
    assert refusal.sentence.endswith(".")


def test_users_roles_and_passwords_survive_a_restart(bench, admin, person) -> None:
    viewer = person("viewer", "viewer")
    viewer.ask(ChangePassword(PASSWORD, PASSWORD * 2))
    assert viewer.refusal(ChangePassword(PASSWORD, "x" * 9)).code == Code.BAD_CREDENTIALS
    admin.ask(CreateRoleDefinition("watcher", (Right.SWARM_READ,)))
    bench.restart()
    assert viewer.ask(GetUser()).grants[0].role == "viewer"
    assert "watcher" in {role.name for role in viewer.ask(ListRoles()).roles}
    again = bench.client()
    assert again.refusal(SignIn("viewer@lab", PASSWORD)).code == Code.BAD_CREDENTIALS
    again.ask(SignIn("viewer@lab", PASSWORD * 2))


def test_a_rotated_token_that_its_own_key_shows_signs_nobody_out(bench, person) -> None:
    client = person("forgetful")
    new = client.ask(RotateToken()).token
    bench.restart()
    assert client.ask(Bind(client.token)).email == "forgetful@lab"
    assert client.ask(WhoAmI()).email == "forgetful@lab"
    assert client.ask(Bind(new)).email == "forgetful@lab"
    client.ask(Logout())
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED


def test_a_rotated_token_that_another_key_shows_ends_its_family(bench, person) -> None:
    owner, first, thief = person("robbed"), bench.client(), bench.client()
    token = owner.ask(CreateUserToken()).token
    assert first.ask(Bind(token)).email == "robbed@lab"
    new = first.ask(RotateToken()).token
    bench.restart()
    assert thief.refusal(Bind(token)).code == Code.TOKEN_REVOKED
    assert first.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    assert first.refusal(Bind(new)).code == Code.TOKEN_REVOKED
    assert owner.ask(WhoAmI()).email == "robbed@lab"


def test_a_token_for_another_machine(bench, person) -> None:
    owner, desk, other = person("traveller"), bench.client(), bench.client()
    token = owner.ask(CreateUserToken(desk.keys.public)).token
    assert other.refusal(Bind(token)).code == Code.TOKEN_KEY
    assert desk.ask(Bind(token)).email == "traveller@lab"
    assert desk.ask(Bind(token)).email == "traveller@lab"
    anyones = owner.ask(CreateUserToken())
    assert anyones.expires_at < time.time() + 90_000
    assert other.ask(Bind(anyones.token)).email == "traveller@lab"
    assert desk.refusal(Bind(anyones.token)).code == Code.TOKEN_KEY
    owner.ask(Logout())
    assert desk.ask(WhoAmI()).email == "traveller@lab"
    desk.ask(Logout(everywhere=True))
    assert other.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    assert other.refusal(Bind(anyones.token)).code == Code.TOKEN_REVOKED


def test_a_token_for_what_is_no_key_is_refused(person) -> None:
    refusal = person("typist").refusal(CreateUserToken("short"))
    assert refusal.code == Code.INVALID
    assert refusal.sentence.startswith("The key of the other machine is not a CURVE key")


def test_a_key_may_bind_its_token_many_times_at_once(person) -> None:
    client = person("hasty")
    asked = [client.gateway.ask_future(Bind(client.token), timeout=10) for _ in range(20)]
    assert {answer.result(60).email for answer in asked} == {"hasty@lab"}
    client.ask(Logout())
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED


def test_a_key_without_a_token_gets_its_first_and_nobody_elses_ends(admin, person) -> None:
    client = person("bystander")
    token = admin.ask(RotateToken()).token
    assert client.ask(Bind(client.token)).email == "bystander@lab"
    assert admin.ask(Bind(token)).email == "me@localhost"
    admin.ask(RotateToken())
    assert admin.ask(Bind(token)).email == "me@localhost"


@pytest.mark.parametrize("everywhere", [False, True])
def test_who_signs_out_is_somebody_no_more(bench, person, everywhere) -> None:
    client, other = person("gone"), bench.client()
    other.ask(SignIn("gone@lab", PASSWORD))
    client.ask(Logout(everywhere))
    assert client.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED
    assert (
        (other.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN)
        if everywhere
        else (other.ask(WhoAmI()).email == "gone@lab")
    )
    bench.restart()
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED
    client.ask(SignIn("gone@lab", PASSWORD))


def test_signing_out_ends_the_links_that_were_there_and_none_that_comes_after(
    bench, person
) -> None:
    client = person("back")
    twin = bench.client(client.keys)
    assert twin.ask(WhoAmI()).email == "back@lab"
    client.ask(Logout())
    later = bench.client(client.keys)
    assert later.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    for old in (client, twin):
        wait_until(partial(ended_once, old))
        assert old.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    assert later.states == [None]


def test_who_signs_in_again_at_once_keeps_his_link(person) -> None:
    client, other = person("hasty"), person("other")
    client.ask(Logout())
    client.ask(SignIn("hasty@lab", PASSWORD))
    other.ask(Logout())
    wait_until(partial(ended_once, other))  # whose farewell is the later one
    assert client.states == [None]
    assert client.ask(WhoAmI()).email == "hasty@lab"


def test_a_link_is_not_cut_while_its_user_signs_in_again(person, monkeypatch) -> None:
    client = person("slow")
    verify = passwords.verify_password
    busy = threading.Event()  # what a password costs on a busy machine: far more than a farewell

    def slowly(stored: str | None, password: str) -> bool:
        busy.wait(3.0)
        return verify(stored, password)

    monkeypatch.setattr(listeners, "FAREWELL", 1.0)
    # A failure that would have to wait for longer is told as one of too many.
    monkeypatch.setattr(limits.Answers, "LONGEST", 60.0)
    monkeypatch.setattr(passwords, "verify_password", slowly)
    client.ask(Logout())
    client.ask(SignIn("slow@lab", PASSWORD))
    assert client.states == [None]
    assert client.ask(WhoAmI()).email == "slow@lab"
    client.ask(Logout())
    assert client.refusal(SignIn("slow@lab", "wrong"), 30.0).code == Code.BAD_CREDENTIALS
    wait_until(partial(ended_once, client))


def test_sign_ins_side_by_side_with_the_right_password_are_no_failures(bench, person) -> None:
    email = person("many").ask(WhoAmI()).email
    clients = [bench.client() for _ in range(6)]
    with ThreadPoolExecutor(len(clients)) as pool:
        signed_in = list(pool.map(lambda one: one.ask(SignIn(email, PASSWORD), 30.0), clients))
    assert {one.email for one in signed_in} == {email}


def test_guesses_of_a_key_side_by_side_are_no_more_than_guesses_in_turn(
    bench, person, monkeypatch
) -> None:
    # Where a check takes seconds, guesses that would wait for longer are refused without one.
    monkeypatch.setattr(limits.Answers, "LONGEST", 60.0)
    email = person("guessed").ask(WhoAmI()).email
    guesser = bench.client()
    guesser.connection.wait_up(60.0)
    asked = [guesser.gateway.ask_future(SignIn(email, "wrong"), timeout=60.0) for _ in range(12)]
    codes = Counter(refused.exception(60.0).code for refused in asked)
    assert codes == {Code.BAD_CREDENTIALS: 5, Code.RATE_LIMITED: 7}


def test_a_password_is_changed_any_number_of_times(person) -> None:
    client = person("often")
    for _ in range(8):
        client.ask(ChangePassword(PASSWORD, PASSWORD))


def ended_once(client: Client) -> bool:
    return client.states == [None, DownReason.CLOSED, None]


def test_of_a_deleted_user_nothing_is_handled_after_the_call_returns(admin, person) -> None:
    client = person("fast", "viewer")
    answered = [0]
    stop = threading.Event()

    def ask_on() -> None:
        while not stop.wait(0.01):
            try:
                client.gateway.ask(GetCluster("lab"), timeout=1.0)
                answered[0] += 1
            except ActorError:
                continue

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        wait_until(lambda: answered[0] > 20)
        admin.ask(DeleteUser("fast@lab"))
        # One answer may have been on the line; from the next on there is none.
        at = answered[0]
        wait_until(lambda: client.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN)
        assert answered[0] <= at + 1
    finally:
        stop.set()
        thread.join()
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED


def test_a_poll_that_waits_is_not_answered_once_the_role_is_withdrawn(bench, admin, person) -> None:
    swarm = admin.ask(SendSwarm("lab", SPEC, wait=True)).swarm_id
    client = person("reader", "viewer")
    poll = client.gateway.ask_future(WaitSwarm(swarm, 20.0), timeout=30.0)
    client.ask(WhoAmI())  # the poll was sent before it
    admin.ask(RevokeRole("reader@lab", "lab"))
    node = bench.node(1)
    assert node.registered.wait(60)
    others = [bench.node(number) for number in (2, 3, 4)]
    assert all(one.registered.wait(60) for one in others)
    admin.ask(StartSwarm(swarm))
    with pytest.raises(Refused) as refused:
        poll.result(30)
    assert refused.value.code == Code.FORBIDDEN


def test_users_are_added_side_by_side(admin, monkeypatch) -> None:
    """As many as a course has: their passwords wait for their turn."""
    monkeypatch.setattr(passwords, "hash_password", lambda password: f"hash of {password}")
    admin.connection.wait_up(60.0)
    asked = [
        admin.gateway.ask_future(AddUser(f"pupil-{number}@lab", PASSWORD), timeout=30.0)
        for number in range(100)
    ]
    assert {future.result(60.0).email for future in asked} == {
        f"pupil-{number}@lab" for number in range(100)
    }
