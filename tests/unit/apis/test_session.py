from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from manta.actors.errors import (
    ActorCrashed,
    ActorDead,
    AnswerLost,
    AskTimeout,
    Refused,
    Unanswered,
    Unreachable,
)
from manta.apis import errors
from manta.apis.async_user_api import AsyncUserAPI
from manta.apis.connect.patience import Patience
from manta.apis.connect.profiles import Target
from manta.apis.connect.session import NotSent, Session, Stalled
from manta.apis.sync import connection as connection_module
from manta.apis.sync.connection import Connection
from manta.apis.user_api import UserAPI
from manta.protocol.clusters import ClusterInfo, Clusters, CreateCluster, ListClusters
from manta.protocol.codes import Code
from manta.protocol.paths import GATEWAY
from manta.protocol.sign_in import SignedIn, WhoAmI
from manta.transports.errors import DownReason
from manta.transports.security.keys import KeyPair

KEYS = KeyPair.generate()
TARGET = Target("host", 1, "default", server_key=KEYS.public)
ME = SignedIn("u", "me@x", "", "tcp://host:2")


class Gateway:
    """Answers from a script: a value, or an error to be raised."""

    def __init__(self, script: dict[type, list[Any]]) -> None:
        self.script = script
        self.asked: list[Any] = []

    def ask_future(self, message: Any, *, timeout: float) -> Future[Any]:
        future: Future[Any] = Future()
        self.asked.append(message)
        answers = self.script[type(message)]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        return future


class Link:
    peer_version = "2.3"

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.closed = False

    @property
    def link(self) -> Link:
        return self

    def ref(self, path: str) -> Gateway:
        assert path == GATEWAY
        return self.gateway

    def close(self) -> None:
        self.closed = True


class FakeSession(Session):
    """Over a link whose states the test tells."""

    def __init__(self, script: dict[type, list[Any]], state: DownReason | None = None) -> None:
        super().__init__(TARGET, KEYS)
        self.gateway = Gateway({WhoAmI: [ME], **script})
        self.link = Link(self.gateway)
        self.first = state

    def _dial(self, key: str) -> Any:
        self._on_state(self.first)
        return self.link

    def drop(self) -> None:
        """The test closes it."""

    def tell(self, state: DownReason | None) -> None:
        self._on_state(state)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "PATIENCE", 0.3)
    monkeypatch.setattr(connection_module, "FIRST_PAUSE", 0.001)


@pytest.fixture
def make() -> Iterator[Callable[..., FakeSession]]:
    made: list[FakeSession] = []

    def build(script: dict[type, list[Any]], state: DownReason | None = None) -> FakeSession:
        made.append(FakeSession(script, state))
        return made[-1]

    yield build
    for session in made:
        session.close()


@pytest.mark.parametrize(
    ("state", "kind", "message"),
    [
        (DownReason.UNREACHABLE, errors.ManagerUnreachable, "No manager answers at host:1"),
        (
            DownReason.UNKNOWN_HOST,
            errors.ManagerUnreachable,
            "The host name 'host' cannot be resolved",
        ),
        (DownReason.WRONG_KEY, errors.WrongServerKey, "does not hold the manager's key"),
        (DownReason.DENIED, errors.Denied, "refused this machine's key"),
        (
            DownReason.VERSION,
            errors.VersionMismatch,
            "speaks another major version of the protocol .2.3, and",
        ),
        (DownReason.PROTOCOL, errors.ProtocolViolation, "same version of Manta"),
        (DownReason.BUSY, errors.ManagerBusy, "try again later"),
        (DownReason.SILENT, errors.ManagerUnreachable, "says nothing"),
    ],
)
def test_why_there_is_no_connection_is_told_apart(
    make: Callable[..., FakeSession], state: DownReason, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as failed:
        UserAPI.over(make({}, state)).list_clusters()
    assert type(failed.value) is kind


def test_a_manager_that_comes_up_meanwhile(make: Callable[..., FakeSession]) -> None:
    session = make({ListClusters: [Clusters(())]}, DownReason.CONNECTING)
    timer = threading.Timer(0.05, session.tell, [None])
    timer.start()
    assert UserAPI.over(session).list_clusters() == []
    timer.join()


def test_a_manager_that_was_there_is_waited_for(make: Callable[..., FakeSession]) -> None:
    session = make({ListClusters: [Clusters(())]})
    api = UserAPI.over(session)
    assert api.list_clusters() == []
    session.tell(DownReason.UNREACHABLE)
    timer = threading.Timer(0.05, session.tell, [None])
    timer.start()
    assert api.list_clusters() == []
    timer.join()
    session.tell(DownReason.UNREACHABLE)
    with pytest.raises(errors.ManagerUnreachable):
        api.list_clusters()


MADE = ClusterInfo("c1", "lab", "RUNNING", "u", 0)
TRANSIENT = [Unreachable("x"), Refused(Code.UNAVAILABLE, "restarting"), ActorDead("x")]
UNKNOWN = [AnswerLost("x"), AskTimeout("x"), ActorCrashed("x"), Unanswered("x")]


@pytest.mark.parametrize("error", TRANSIENT)
def test_what_was_not_carried_out_is_sent_again(
    make: Callable[..., FakeSession], error: Exception
) -> None:
    session = make({CreateCluster: [error, error, MADE]})
    assert UserAPI.over(session).create_cluster("lab").name == "lab"
    assert [type(message) for message in session.gateway.asked[1:]] == [CreateCluster] * 3


@pytest.mark.parametrize("error", UNKNOWN)
def test_what_may_have_been_carried_out_is_not_sent_again(
    make: Callable[..., FakeSession], error: Exception
) -> None:
    session = make({CreateCluster: [error, MADE]})
    with pytest.raises(errors.NoAnswer, match=r"CreateCluster.*may have been carried out"):
        UserAPI.over(session).create_cluster("lab")
    assert len(session.gateway.asked) == 2


@pytest.mark.parametrize("error", [*TRANSIENT, *UNKNOWN])
def test_reads_are_repeated(make: Callable[..., FakeSession], error: Exception) -> None:
    session = make({ListClusters: [error, Clusters((MADE,))]})
    (cluster,) = UserAPI.over(session).list_clusters()
    assert cluster.id == cluster["id"] == "c1"


def test_patience_ends(make: Callable[..., FakeSession]) -> None:
    with pytest.raises(NotSent, match="could not be sent"):
        UserAPI.over(make({ListClusters: [Unreachable("gone")]})).list_clusters()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (Code.NOT_SIGNED_IN, errors.NotAuthenticated),
        (Code.TOKEN_EXPIRED, errors.TokenRefused),
        (Code.FORBIDDEN, errors.Forbidden),
        (Code.UNKNOWN_SWARM, errors.NotFound),
        (Code.UNPLACEABLE, errors.Unplaceable),
        (Code.STORAGE, errors.ManagerFault),
        ("of a later version", errors.RequestRefused),
    ],
)
def test_refusals_are_typed(
    make: Callable[..., FakeSession], code: str, kind: type[errors.RequestRefused]
) -> None:
    refused = Refused(code, "No.", {"problems": ["a", "b"]})
    with pytest.raises(kind, match=r"^No\.$") as failed:
        UserAPI.over(make({ListClusters: [refused]})).list_clusters()
    assert type(failed.value) is kind
    assert failed.value.code == code
    if isinstance(failed.value, errors.Unplaceable):
        assert failed.value.problems == ("a", "b")


def test_every_code_has_a_kind() -> None:
    for code in Code:
        assert type(errors.refusal(code, "x", {})) is not errors.RequestRefused


def test_closed_api(make: Callable[..., FakeSession]) -> None:
    session = make({ListClusters: [None]}, DownReason.CONNECTING)
    api = UserAPI.over(session)
    timer = threading.Timer(0.05, api.close)
    timer.start()
    with pytest.raises(errors.ApiClosed):
        api.list_clusters()
    timer.join()
    with pytest.raises(errors.ApiClosed, match="make a new one"):
        api.list_clusters()
    assert session.link.closed
    api.close()


def test_without_token_and_key() -> None:
    session = Session(Target("h", 1, "default"), KEYS)
    with pytest.raises(errors.NotAuthenticated, match="Not signed in to h:1"):
        Connection(session).who()
    session.close()


@pytest.mark.parametrize("wrong", [None, 3, "", object()])
def test_what_is_no_id(make: Callable[..., FakeSession], wrong: Any) -> None:
    with pytest.raises(errors.InvalidArgument, match="The cluster is"):
        UserAPI.over(make({})).get_cluster(wrong)


def test_the_same_asynchronously(make: Callable[..., FakeSession]) -> None:
    async def main() -> None:
        session = make({ListClusters: [Unreachable("x"), Clusters((MADE,))]})
        async with AsyncUserAPI.over(session) as api:
            (cluster,) = await api.list_clusters()
            assert cluster.name == "lab"
            session.gateway.script[ListClusters] = [Refused(Code.FORBIDDEN, "No.")]
            with pytest.raises(errors.Forbidden):
                await api.list_clusters()
        with pytest.raises(errors.ApiClosed):
            await api.list_clusters()

    asyncio.run(main())


@pytest.mark.parametrize(("stops", "begun"), [([], 1), ([100.0], 2), ([100.0, 3600.0], 3)])
def test_a_transfer_is_begun_again_for_each_time_that_this_process_stood_still(
    make: Callable[..., FakeSession],
    monkeypatch: pytest.MonkeyPatch,
    stops: list[float],
    begun: int,
) -> None:
    now, attempts = 0.0, 0

    def slowly(future: Future[Any], meanwhile: Callable[[], object]) -> Any:
        """Ten minutes pass, and perhaps a stop."""
        nonlocal now
        for seconds in [1.0] * 600 + stops[attempts - 1 : attempts]:
            now += seconds
            meanwhile()
        return future.result()

    def stalled() -> Future[Any]:
        nonlocal attempts
        attempts += 1
        future: Future[Any] = Future()
        future.set_exception(Stalled("nothing came"))
        return future

    monkeypatch.setattr(connection_module, "outcome", slowly)
    monkeypatch.setattr(
        connection_module, "Patience", lambda seconds: Patience(seconds, lambda: now)
    )
    with pytest.raises(Stalled):
        Connection(make({}))._all([stalled])
    assert attempts == begun
