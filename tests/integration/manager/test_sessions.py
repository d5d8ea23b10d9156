"""A session ends with its token, with a change of the password, and with a theft that shows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from manta.actors import ActorError
from manta.manager.auth import passwords
from manta.manager.gateway import registrar
from manta.manager.gateway.registrar import Registrar
from manta.protocol.clusters import ListClusters, WatchClusters
from manta.protocol.codes import Code
from manta.protocol.sign_in import Bind, CreateUserToken, RotateToken, SignIn, WhoAmI
from manta.protocol.users import AddUser, ChangePassword, DeleteUser, GrantRole
from manta.testing import wait_until
from manta.testing.manager import Client
from manta.transports.errors import DownReason

PASSWORD, NEW = "correct-horse", "battery-staple"
USER = "ada@lab"


@pytest.fixture
def session(bench, admin: Client) -> Callable[..., Client]:
    """Signs the user in, each time with another key."""
    admin.ask(AddUser(USER, PASSWORD))
    admin.ask(GrantRole(USER, "lab", "viewer"))

    def make(at: str = "") -> Client:
        client = bench.client(at=at)
        client.token = client.ask(SignIn(USER, PASSWORD), 30.0).token
        return client

    return make


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Says how long tokens live from now on."""

    def make(seconds: float) -> None:
        monkeypatch.setattr(registrar, "USER_TTL", seconds)

    return make


def is_over(client: Client) -> bool:
    return client.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN


def was_cut(client: Client) -> bool:
    return len(client.states) > 1


def has_ended(client: Client) -> bool:
    """Without reconnecting first, as `refusal` does."""
    try:
        client.gateway.ask(WhoAmI(), timeout=60.0)
    except ActorError:
        return True
    return False


def test_with_its_token_ends_what_a_key_may_do_and_its_links_are_cut(bench, session, short) -> None:
    lasting = session()
    short(3.0)
    client = session()
    elsewhere = bench.client(client.keys, at=bench.nodes_at)
    assert elsewhere.ask(WhoAmI()).email == USER
    poll = client.gateway.ask_future(WatchClusters("", 60.0), timeout=90.0)
    poll = client.gateway.ask_future(WatchClusters(poll.result(60).revision, 60.0), timeout=90.0)
    for one in (client, elsewhere):
        wait_until(partial(was_cut, one))
        assert one.states[1] is DownReason.CLOSED or one.states[1] is DownReason.LOST
        assert is_over(one)
    assert isinstance(poll.exception(60), ActorError)
    assert client.refusal(Bind(client.token)).code == Code.TOKEN_EXPIRED
    assert not bench.manager.context.bulk_admission.denies(lasting.keys.public)
    assert bench.manager.context.bulk_admission.denies(client.keys.public)
    assert lasting.ask(WhoAmI()).email == USER
    bench.restart()
    assert is_over(client)
    assert lasting.ask(WhoAmI()).email == USER
    assert client.ask(SignIn(USER, PASSWORD)).email == USER


def test_expiry_is_looked_at_for_every_message(session, short, monkeypatch) -> None:
    monkeypatch.setattr(Registrar, "_cut_expired", lambda registrar: None)
    short(2.0)
    client = session()
    wait_until(lambda: has_ended(client))
    assert client.states == [None]
    assert is_over(client)


def test_a_token_that_expired_while_the_manager_was_away_admits_nobody(
    bench, session, short
) -> None:
    short(2.0)
    client = session()
    bench.stop()
    threading.Event().wait(3.0)
    bench.start()
    assert bench.manager.context.bulk_admission.denies(client.keys.public)
    assert is_over(client)


def test_a_new_token_gives_its_key_more_time(bench, session, short) -> None:
    short(3.0)
    client, control = session(), session()
    short(1000.0)
    client.ask(RotateToken())
    wait_until(lambda: has_ended(control))
    assert client.ask(WhoAmI()).email == USER
    assert client.states == [None]
    bench.restart()
    assert client.ask(WhoAmI()).email == USER


def test_a_change_of_the_password_ends_all_other_sessions(bench, admin: Client, session) -> None:
    own, others = session(), [session(), session()]
    elsewhere = bench.client(others[0].keys, at=bench.nodes_at)
    assert elsewhere.ask(WhoAmI()).email == USER
    unused = own.ask(CreateUserToken()).token
    own.ask(ChangePassword(PASSWORD, NEW), 30.0)
    for one in (*others, elsewhere):
        assert has_ended(one)
        assert is_over(one)
    for one in others:
        assert one.refusal(Bind(one.token)).code == Code.TOKEN_REVOKED
    assert bench.client().refusal(Bind(unused)).code == Code.TOKEN_REVOKED
    bench.restart()
    assert own.ask(Bind(own.token)).email == USER
    assert own.ask(ListClusters()).clusters
    assert is_over(others[0])
    assert others[0].ask(SignIn(USER, NEW), 30.0).email == USER


def test_the_old_password_signs_nobody_in_who_was_about_to(bench, session, monkeypatch) -> None:
    client, late = session(), bench.client()
    verify, hashed, go = passwords.verify_password, threading.Event(), threading.Event()

    def slowly(stored: str | None, password: str) -> bool:
        found = verify(stored, password)
        if not hashed.is_set():
            hashed.set()
            go.wait(60)
        return found

    monkeypatch.setattr(passwords, "verify_password", slowly)
    late.connection.wait_up(60.0)
    signing_in = late.gateway.ask_future(SignIn(USER, PASSWORD), timeout=60.0)
    assert hashed.wait(60)
    client.ask(ChangePassword(PASSWORD, NEW), 30.0)
    go.set()
    assert signing_in.exception(60).code == Code.BAD_CREDENTIALS
    assert is_over(late)


def test_a_replaced_token_of_a_key_that_another_key_shows_ends_its_session(
    bench, admin: Client, session
) -> None:
    """It is bound since it was made, so that no other key could use it anyway."""
    client, other, thief = session(), session(), bench.client()
    new = client.ask(RotateToken()).token
    assert thief.refusal(Bind(client.token)).code == Code.TOKEN_REVOKED
    assert has_ended(client)
    assert is_over(client)
    assert client.refusal(Bind(new)).code == Code.TOKEN_REVOKED
    assert is_over(thief)
    assert other.ask(WhoAmI()).email == USER
    bench.restart()
    assert is_over(client)


def test_a_valid_token_that_another_key_shows_changes_nothing(bench, session) -> None:
    client, thief = session(), bench.client()
    assert thief.refusal(Bind(client.token)).code == Code.TOKEN_KEY
    assert is_over(thief)
    assert client.ask(WhoAmI()).email == USER
    assert client.states == [None]


def test_a_deleted_user_who_is_signing_in_does_not(bench, admin: Client, session) -> None:
    session()
    late = bench.client()
    late.connection.wait_up(60.0)
    signing_in = late.gateway.ask_future(SignIn(USER, PASSWORD), timeout=60.0)
    admin.ask(DeleteUser(USER))
    error = signing_in.exception(60)
    assert error is None or error.code in (Code.BAD_CREDENTIALS, Code.TOKEN_REVOKED)
    wait_until(lambda: is_over(late))
