"""Whose key was withdrawn is not heard and not answered, on whatever link he has."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from blake3 import blake3

from manta.actors import ActorError
from manta.apis.connect.spool import Spool
from manta.manager.auth.principals import Kind
from manta.manager.gateway.gateway import Gateway
from manta.protocol.clusters import GetCluster, RemoveNode
from manta.protocol.codes import Code
from manta.protocol.node import Heartbeat, Load
from manta.protocol.sign_in import Bind, CreateUserToken, Logout, RotateToken, SignIn, WhoAmI
from manta.protocol.users import AddUser, DeleteUser, GrantRole
from manta.testing import wait_until
from manta.testing.curve import CurveClient
from manta.testing.manager import Client
from manta.transports.bulk.curve import CurveBulk
from manta.transports.bulk.wire import Cancel, pack
from manta.transports.codec.values import encode
from manta.transports.errors import BulkTimeout
from manta.transports.zeromq.links import ZmqLink
from manta.transports.zeromq.listener import AcceptedLink

PASSWORD = "correct-horse"


class Witness:
    """What the manager handles of users, and what it sends over links: whose, and when."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.handled: list[tuple[float, str]] = []
        self.sent: list[tuple[float, ZmqLink]] = []
        handle, send = Gateway._handle_request, ZmqLink.send

        def handling(gateway, message, who):
            answer = handle(gateway, message, who)  # raises Refused: not handled
            if who.kind is Kind.USER:
                self.handled.append((time.perf_counter(), who.key))
            return answer

        def sending(link, message):
            send(link, message)
            if isinstance(link, AcceptedLink):
                self.sent.append((time.perf_counter(), link))

        monkeypatch.setattr(Gateway, "_handle_request", handling)
        monkeypatch.setattr(ZmqLink, "send", sending)

    def links_of(self, key: str) -> set[ZmqLink]:
        return {link for _, link in self.sent if link.peer_key == key}

    def after(self, at: float, key: str, links: set[ZmqLink]) -> tuple[int, int]:
        """Handled, and sent over these links."""
        handled = sum(when > at and who == key for when, who in self.handled)
        return handled, sum(when > at and link in links for when, link in self.sent)


@pytest.fixture
def witness(bench, monkeypatch: pytest.MonkeyPatch) -> Witness:
    return Witness(monkeypatch)


class Talker:
    """A user's client that asks a hundred times a second, and holds long polls besides."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.answered = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk)

    def _talk(self) -> None:
        while not self._stop.wait(0.01):
            try:
                self.client.gateway.ask_future(GetCluster("lab"), timeout=5.0).add_done_callback(
                    self._done
                )
            except ActorError:
                continue

    def _done(self, future) -> None:
        self.answered += future.exception() is None

    def __enter__(self) -> Talker:
        self._thread.start()
        wait_until(lambda: self.answered > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def user(bench, admin: Client) -> Callable[[], Client]:
    """Signs the same user in, each time with another key."""
    admin.ask(AddUser("fast@lab", PASSWORD))
    admin.ask(GrantRole("fast@lab", "lab", "viewer"))

    def make() -> Client:
        client = bench.client()
        client.token = client.ask(SignIn("fast@lab", PASSWORD)).token
        return client

    return make


def test_of_a_revoked_user_nothing_is_handled_and_to_him_nothing_is_sent(
    admin: Client, user, witness: Witness
) -> None:
    """With two machines of one user and 100 messages a second from each."""
    one, other = user(), user()
    with Talker(one) as first, Talker(other) as second:
        keys = [one.keys.public, other.keys.public]
        links = {key: witness.links_of(key) for key in keys}
        assert all(links.values())
        admin.ask(DeleteUser("fast@lab"))
        returned = time.perf_counter()
        time.sleep(1.0)
        counts = [witness.after(returned, key, links[key]) for key in keys]
        assert counts == [(0, 0), (0, 0)]
        answered = first.answered, second.answered
        time.sleep(0.2)
        assert (first.answered, second.answered) == answered
    assert one.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
    assert one.refusal(Bind(one.token)).code == Code.TOKEN_REVOKED


def silenced(client: Client, within: float) -> None:
    """The key is nobody's, in `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        try:
            client.gateway.ask(WhoAmI(), timeout=1.0)
        except ActorError:
            break
        assert time.monotonic() < deadline, "it is still answered"
    assert client.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN


@pytest.mark.parametrize("how", ["reuse", "logout everywhere", "delete"])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_revocation_acts_on_all_live_links_within_a_second(
    bench, admin: Client, user, how: str, restarted: bool
) -> None:
    """Each key has a link to the users' port and one to the nodes', both live."""
    client = user()
    more = [] if how == "reuse" else [user()]
    if how == "reuse":  # of a token that is bound to no key before it is shown
        token = client.ask(CreateUserToken()).token
        client = bench.client()
        client.ask(Bind(token))
        client.token = token
    old = client.token
    client.token = client.ask(RotateToken()).token
    twins = [bench.client(one.keys, at=bench.nodes_at) for one in (client, *more)]
    if restarted:
        bench.restart()
    everywhere = [client, *more, *twins]
    assert {one.ask(WhoAmI()).email for one in everywhere} == {"fast@lab"}
    if how == "reuse":
        assert bench.client().refusal(Bind(old)).code == Code.TOKEN_REVOKED
    elif how == "delete":
        admin.ask(DeleteUser("fast@lab"))
    else:
        client.ask(Logout(everywhere=True))
    began = time.monotonic()
    for one in everywhere:
        silenced(one, began + 1.0 - time.monotonic())
    for one in (client, *more):
        assert one.refusal(Bind(one.token)).code == Code.TOKEN_REVOKED
    bench.restart()
    for one in (client, *more):  # nor after another start
        assert one.refusal(WhoAmI()).code == Code.NOT_SIGNED_IN
        assert one.refusal(Bind(one.token)).code == Code.TOKEN_REVOKED


class Slow(Spool):
    """It takes what it fetches only once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = threading.Event(), threading.Event()

    def sink(self, digest: str, size: int):
        region = super().sink(digest, size)
        write = region.write

        def slowly(data) -> None:
            self.begun.set()
            self.go.wait(60)
            write(data)

        region.write = slowly  # type: ignore[method-assign]
        return region


@pytest.mark.parametrize("how", ["logout", "delete"])
def test_what_a_revoked_user_is_fetching_does_not_come_to_its_end(
    bench, admin: Client, user, how: str
) -> None:
    client, depot = user(), Slow()
    value = encode(bytes(32 * 1024 * 1024))
    digest = blake3(value.to_bytes()).hexdigest()
    bulk = CurveBulk(client.keys, depot)
    try:
        peer = bulk.dial(bench.manager.file.bulk, bench.key)
        depot.offer(digest, value)
        peer.push(digest, value.nbytes, timeout=20).result(60)
        fetching = peer.fetch(digest, value.nbytes, timeout=1.0)
        assert depot.begun.wait(60)
        if how == "logout":
            client.ask(Logout())
        else:
            admin.ask(DeleteUser("fast@lab"))
        depot.go.set()
        with pytest.raises(BulkTimeout):
            fetching.result(10)
        assert bulk.statistics.received < value.nbytes
    finally:
        depot.go.set()
        bulk.close()


def bulk_connection(bench, keys) -> CurveClient:
    """It is served, and has nothing to say."""
    connection = CurveClient(bench.manager.file.bulk, bench.key, keys).connect()
    bench.undo.enter_context(connection)
    connection.send(pack(Cancel(bytes(16))))
    assert not connection.wait_cut(0.2)
    return connection


@pytest.mark.parametrize("how", ["logout", "logout everywhere", "delete", "node"])
def test_an_open_bulk_connection_ends_with_its_key(bench, admin: Client, user, how: str) -> None:
    """At once, and not with its next message."""
    client = user()
    keys = bench.node_keys[0] if how == "node" else client.keys
    connections = [bulk_connection(bench, keys) for _ in range(3)]
    other = bulk_connection(bench, bench.admin_keys)
    # In the middle of a message as well.
    connections[0].send_raw(connections[0].sealed(b"begun", more=True))
    if how == "node":
        admin.ask(RemoveNode("node-1"))
    elif how == "delete":
        admin.ask(DeleteUser("fast@lab"))
    else:
        client.ask(Logout(everywhere=how != "logout"))
    assert [one.wait_cut(1.0) for one in connections] == [True] * 3
    assert not other.wait_cut(0.2)


def test_a_removed_nodes_link_is_cut_within_a_second(
    bench, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node is revoked while it sends a hundred messages a second."""
    handled: list[float] = []
    handle = Gateway._handle_request

    def handling(gateway, message, who):
        answer = handle(gateway, message, who)  # raises Refused: not handled
        if who.kind is Kind.NODE and who.id == victim.node_id:
            handled.append(time.monotonic())
        return answer

    monkeypatch.setattr(Gateway, "_handle_request", handling)
    victim, other = bench.node(1), bench.node(2)
    assert victim.registered.wait(60)
    assert other.registered.wait(60)
    stop = threading.Event()

    def talk() -> None:
        while not stop.wait(0.01):
            victim.tell(Heartbeat(0, Load()))

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        wait_until(lambda: len(handled) > 20)
        began = time.monotonic()
        admin.ask(RemoveNode(victim.node_id))
        returned = time.monotonic()
        wait_until(lambda: not victim.registered.is_set(), 1.0 - (returned - began))
        time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
    assert [at for at in handled if at > returned] == []
    assert other.registered.is_set()
