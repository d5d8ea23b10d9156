"""Users, roles and their tokens by the SDK, call by call, on a real manager with two real nodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from manta import Module, Swarm, Task, UserAPI
from manta.apis import errors
from manta.apis.connect import profiles
from manta.cli.local.cluster import CLUSTER, HOST, LocalCluster
from manta.testing.clusters import client, running

PASSWORD = "correct horse"
ADA = "ada@example.org"


class Hello(Swarm):
    def execute(self) -> Task:
        return Task(Module("def main():\n    pass\n", name="hello"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with running(LocalCluster, 2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def api(cluster: LocalCluster) -> Iterator[UserAPI]:
    with client(cluster) as api:
        # Threads that a first use starts belong to all tests.
        api.remove_swarm(api.send_swarm(CLUSTER, Hello()))
        yield api


Machine = Callable[[str], UserAPI]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Go to a machine of this name: its `~/.manta` is in use from here on."""

    def go(name: str) -> Path:
        monkeypatch.setenv("MANTA_HOME", str(tmp_path / name))
        return tmp_path / name

    for variable in ("MANTA_TOKEN", "MANTA_HOST", "MANTA_PORT", "MANTA_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    go("laptop")
    return go


@pytest.fixture
def sign_in(
    cluster: LocalCluster, api: UserAPI, home: Callable[[str], Path]
) -> Iterator[Callable[..., UserAPI]]:
    """Ada, signed in on the machine that is in use."""
    api.add_user(ADA, PASSWORD)
    with ExitStack() as undo:

        def ada(password: str = PASSWORD, **options: object) -> UserAPI:
            where = {"server_key": cluster.manager_keys.public, **options}
            return undo.enter_context(
                UserAPI.sign_in(ADA, password, HOST, cluster.user_port, **where)  # type: ignore[arg-type]
            )

        yield ada
    if ADA in {user.email for user in api.list_users()}:
        api.delete_user(ADA)


def test_a_user_from_the_first_day_to_the_last(api: UserAPI, sign_in, home) -> None:
    before = time.time()
    bob = api.add_user("  Bob@Example.org", PASSWORD)
    assert (bob.email, bob.admin, bob.grants) == ("bob@example.org", False, ())
    assert bob["id"] == bob.id
    assert before - 1 <= bob.created_at <= time.time() + 1
    for name in (bob, bob.id, bob.id[:12], bob.email, "BOB@example.org"):
        assert api.get_user(name) == bob
    everybody = api.list_users()
    assert [user.email for user in everybody] == [ADA, "bob@example.org", "user@localhost"]
    assert api.list_user_ids() == [user.id for user in everybody]
    assert list(api.stream_users()) == list(api.stream_and_fetch_users()) == everybody
    me = api.get_user()
    assert (me.email, me.admin) == ("user@localhost", True)
    assert [(grant.cluster_name, grant.role) for grant in me.grants] == [(CLUSTER, "owner")]
    ada = sign_in()
    assert ada.get_user().email == ADA
    assert ada.list_clusters() == []
    api.delete_user(bob)
    assert api.list_user_ids() == [user.id for user in everybody if user != bob]
    for gone in (api.get_user, api.delete_user):
        with pytest.raises(errors.NotFound, match=r"no user '.*; an administrator sees them all"):
            gone(bob.email)
    api.delete_user(ada.get_user())
    with pytest.raises(errors.NotAuthenticated, match="sign in"):
        ada.list_clusters()
    with pytest.raises(errors.NotAuthenticated, match="Address or password are wrong"):
        sign_in()


def test_an_administrator_can_be_added_and_does_what_the_first_may(api: UserAPI, sign_in) -> None:
    second = api.add_user("second@example.org", PASSWORD, admin=True)
    assert second.admin
    ada = sign_in()
    with pytest.raises(errors.Forbidden, match="administrator"):
        ada.add_user("third@example.org", PASSWORD)
    api.delete_user(second)


def test_a_role_gives_is_replaced_and_is_taken_away(api: UserAPI, sign_in) -> None:
    ada, where = sign_in(), api.get_cluster(CLUSTER)
    with pytest.raises(errors.NotFound, match=r"no cluster 'local'; see `manta cluster list`"):
        ada.list_nodes(CLUSTER)
    granted = api.grant_role(ada.get_user(), where, "viewer")
    [grant] = granted.grants
    assert dict(grant) == {"cluster_id": where.id, "cluster_name": CLUSTER, "role": "viewer"}
    assert granted == api.get_user(ADA) == ada.get_user()
    assert len(ada.list_nodes(CLUSTER)) == 2
    with pytest.raises(errors.Forbidden, match=r"viewer.*swarm\.deploy|swarm\.deploy.*viewer"):
        ada.deploy_swarm(CLUSTER, Hello())
    [grant] = api.grant_role(ADA, CLUSTER, "researcher").grants
    assert grant.role == "researcher"
    deployed = ada.deploy_swarm(CLUSTER, Hello())
    assert ada.wait_swarm(deployed, timeout=60).status == "COMPLETED"
    with pytest.raises(errors.Forbidden):
        ada.create_node_token(CLUSTER)
    assert api.revoke_role(ADA, where).grants == ()
    with pytest.raises(errors.NotFound):
        ada.get_swarm(deployed)
    with pytest.raises(errors.WrongState, match=f"{ADA} has no role in this cluster"):
        api.revoke_role(ADA, CLUSTER)


def test_a_role_of_ones_own(api: UserAPI, sign_in) -> None:
    ada = sign_in()
    made = api.create_role_definition("watcher", ["node.read", "cluster.read"])
    assert (made.name, made.rights, made.builtin) == (
        "watcher",
        ("cluster.read", "node.read"),
        False,
    )
    single = api.create_role_definition("doorman", "node.enrol")
    assert single.rights == ("node.enrol",)
    roles = {role.name: role for role in ada.list_roles()}
    assert [name for name, role in roles.items() if role.builtin] == [
        "viewer",
        "researcher",
        "operator",
        "owner",
    ]
    assert (roles["watcher"], roles["doorman"]) == (made, single)
    api.grant_role(ADA, CLUSTER, "watcher")
    assert len(ada.list_nodes(CLUSTER)) == 2
    with pytest.raises(errors.Forbidden, match="watcher"):
        ada.list_swarms(CLUSTER)
    with pytest.raises(errors.WrongState, match="'watcher' is granted"):
        api.delete_role_definition("watcher")
    api.revoke_role(ADA, CLUSTER)
    for name in ("watcher", "doorman"):
        api.delete_role_definition(name)
    with pytest.raises(errors.NotFound, match="'watcher'"):
        api.grant_role(ADA, CLUSTER, "watcher")


def test_a_rotated_token_takes_the_place_of_the_one_before(sign_in, home, cluster) -> None:
    ada = sign_in()
    folder = profiles.home()
    first = profiles.load_token(folder, "default")
    second = ada.rotate_token()
    assert second != first
    assert profiles.load_token(folder, "default") == second
    assert ada.get_user().email == ADA
    with UserAPI() as again:
        assert again.get_user().email == ADA
    with UserAPI(first) as late:  # from a variable, or an old file
        assert late.get_user().email == ADA
    with UserAPI() as again:
        assert again.get_user().email == ADA


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_logout_ends_this_machines_session_and_forgets_it(
    sign_in, home, everywhere: bool
) -> None:
    laptop = sign_in()
    home("desk")
    desk = sign_in()
    home("laptop")
    laptop.logout(everywhere)
    folder = profiles.home()
    assert [path.name for path in folder.rglob("*.*")] == ["default.json"]  # how to reach it
    for ended in (laptop, UserAPI()):
        with ended, pytest.raises(errors.NotAuthenticated, match="sign in"):
            ended.get_user()
    home("desk")
    if everywhere:
        with pytest.raises(errors.NotAuthenticated):
            desk.get_user()
    else:
        assert desk.get_user().email == ADA
        with UserAPI() as again:
            assert again.get_user().email == ADA
    home("laptop")
    assert sign_in().get_user().email == ADA


def test_a_password_is_changed_by_its_owner(sign_in) -> None:
    ada = sign_in()
    with pytest.raises(errors.NotAuthenticated, match="old password is wrong"):
        ada.change_password("wrong horse", "another horse")
    ada.change_password(PASSWORD, "another horse")
    assert ada.get_user().email == ADA
    with pytest.raises(errors.NotAuthenticated, match="Address or password"):
        sign_in()
    assert sign_in("another horse").get_user().email == ADA


def test_a_token_serves_its_own_home_and_no_other(sign_in, home, cluster) -> None:
    ada = sign_in()
    token = profiles.load_token(profiles.home(), "default")
    home("elsewhere")
    where = {"host": HOST, "port": cluster.user_port}
    with (
        UserAPI(token, **where) as stolen,
        pytest.raises(errors.TokenRefused, match="bound to another key") as refused,
    ):
        stolen.list_clusters()
    assert str(refused.value).endswith(".")
    assert not list((profiles.home() / "credentials").glob("*"))
    home("laptop")
    assert ada.get_user().email == ADA
    with UserAPI(token, **where) as at_home, UserAPI() as by_profile:
        assert at_home.get_user() == by_profile.get_user() == ada.get_user()


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda api: api.get_user("nobody"), errors.NotFound, "no user 'nobody'"),
        (lambda api: api.delete_user("user@localhost"), errors.WrongState, "last administrator"),
        (lambda api: api.add_user("nobody", PASSWORD), errors.InvalidRequest, "not an address"),
        (lambda api: api.add_user("a@b", "short"), errors.InvalidRequest, "8 to .* not 5"),
        (lambda api: api.add_user("USER@localhost", PASSWORD), errors.NameTaken, "already"),
        (lambda api: api.add_user("a@b", None), errors.InvalidArgument, "password is None"),
        (lambda api: api.add_user("a@b", PASSWORD, 1), errors.InvalidArgument, "admin is 1"),
        (lambda api: api.get_user(3), errors.InvalidArgument, "The user is 3"),
        (
            lambda api: api.grant_role("user@localhost", CLUSTER, "king"),
            errors.NotFound,
            "no role 'king'; there are: viewer, researcher, operator, owner",
        ),
        (lambda api: api.grant_role("nobody", CLUSTER, "viewer"), errors.NotFound, "user 'nobody'"),
        (
            lambda api: api.grant_role("user@localhost", "nowhere", "viewer"),
            errors.NotFound,
            "no cluster 'nowhere'",
        ),
        (
            lambda api: api.revoke_role("user@localhost", CLUSTER),
            errors.WrongState,
            "last owner of the cluster 'local'",
        ),
        (
            lambda api: api.create_role_definition("cook", ["swarm.eat"]),
            errors.InvalidRequest,
            r"no right 'swarm\.eat'; there are: cluster\.read",
        ),
        (
            lambda api: api.create_role_definition("owner", ["swarm.read"]),
            errors.NameTaken,
            "a role 'owner' already",
        ),
        (
            lambda api: api.create_role_definition("idler", []),
            errors.InvalidRequest,
            "'idler' has no rights; name one",
        ),
        (
            lambda api: api.create_role_definition("x", None),
            errors.InvalidRequest,
            "has no rights; name one",
        ),
        (lambda api: api.create_role_definition("x", 3), errors.InvalidArgument, "rights is 3"),
        (lambda api: api.delete_role_definition("owner"), errors.InvalidRequest, "is built in"),
        (lambda api: api.delete_role_definition("x"), errors.NotFound, "no role 'x'"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    api: UserAPI, call: Callable[[UserAPI], object], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as refused:
        call(api)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)
