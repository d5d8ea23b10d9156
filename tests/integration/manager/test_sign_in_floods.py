"""Strangers guess passwords as fast as they can: users sign in, and others notice nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import pytest

from manta.actors import ActorError, Refused
from manta.actors.shares import GUEST_MESSAGES
from manta.manager.auth import limits, passwords
from manta.manager.auth.limits import Answers
from manta.manager.gateway import registrar
from manta.protocol.clusters import ListClusters
from manta.protocol.codes import Code
from manta.protocol.enrolment import Enroll
from manta.protocol.sign_in import Bind, SignIn, WhoAmI
from manta.protocol.users import AddUser, ChangePassword
from manta.testing import wait_until
from manta.testing.manager import Client
from manta.transports.errors import DownReason

PASSWORD = "correct-horse"
USER = "victim@lab"
ASKED = 60.0
"""Seconds in which an answer has to come, on a busy machine."""


@pytest.fixture
def _hash_quickly() -> None:
    """Here hashes cost what they cost."""


@pytest.fixture(autouse=True)
def user(admin: Client) -> None:
    admin.ask(AddUser(USER, PASSWORD), ASKED)


@contextmanager
def flood(bench, message: Callable[[int], object], clients: int, a_second: float) -> Iterator[list]:
    """Asks that many times a second in all, by that many strangers of this address; each of them
    is replaced by one with a new key after some asks. Yields what was asked."""
    asked: list[object] = []
    stop = threading.Event()

    def run(first: int) -> None:
        number = first
        with ExitStack() as undo:
            client = undo.enter_context(Client(bench.users_at, bench.key))
            while not stop.wait(clients / a_second):
                if number % (4 * clients) == first:
                    undo.close()
                    client = undo.enter_context(Client(bench.users_at, bench.key))
                try:
                    asked.append(client.gateway.ask_future(message(number), timeout=ASKED))
                except ActorError:
                    continue  # its link is not up yet
                number += clients

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(asked) > 20)
        yield asked
    finally:
        stop.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize(
    ("message", "a_second"),
    [
        (lambda number: SignIn(USER, f"guess {number}"), 2.0),
        (lambda number: SignIn(f"nobody-{number}@lab", "guess"), 80.0),
        (lambda number: SignIn("nobody@lab", "guess"), 80.0),
    ],
    ids=["at the address of a user", "at unknown addresses", "at an unknown address"],
)
def test_the_right_password_signs_in_during_a_flood_of_guesses(
    bench, monkeypatch, message, a_second
) -> None:
    """Of the user's own address, at which too many have failed already."""
    monkeypatch.setattr(limits, "GUESSES", 3)
    bench.restart()
    with flood(bench, message, clients=4, a_second=a_second):
        for _ in range(2):
            with Client(bench.users_at, bench.key) as client:
                wait_until(partial(signs_in, client), 100.0)


def signs_in(client: Client) -> bool:
    """Of the guesses that come from here and of this, one a second is checked."""
    try:
        return bool(client.ask(SignIn(USER, PASSWORD), ASKED).email == USER)
    except Refused as refusal:
        if refusal.code != Code.RATE_LIMITED:
            raise
        return False


def test_many_guesses_at_once_are_refused_alike_whether_or_not_there_is_such_a_user(bench) -> None:
    emails = (USER, "nobody@lab")
    clients = [bench.client() for _ in range(8)]
    for client in clients:
        client.connection.wait_up(60.0)
    # Each asks for both in turn, so that neither is asked for earlier than the other.
    asked = [
        (email, clients[number % 8].gateway.ask_future(SignIn(email, "x"), timeout=ASKED))
        for number in range(40)
        for email in (emails if (number + number // 8) % 2 else reversed(emails))
    ]
    codes = {email: Counter[str]() for email in emails}
    for email, future in asked:
        codes[email][future.exception(ASKED).code] += 1
    there, nobody = (codes[email][Code.RATE_LIMITED] for email in emails)
    assert abs(there - nobody) <= 3, codes
    assert codes[USER].keys() == {Code.RATE_LIMITED, Code.BAD_CREDENTIALS}


def test_a_wrong_password_takes_as_long_as_an_unknown_address(bench) -> None:
    def took(email: str) -> float:
        with Client(bench.users_at, bench.key) as client:
            client.connection.wait_up(60.0)
            began = time.monotonic()
            assert client.refusal(SignIn(email, "guess"), ASKED).code == Code.BAD_CREDENTIALS
            return time.monotonic() - began

    known, unknown = ([took(email) for _ in range(3)] for email in (USER, "nobody@lab"))
    for one in (*known, *unknown):  # later only on a machine on which a check takes that long
        assert one >= Answers.AFTER


def test_who_is_signed_in_is_heard_during_a_flood_of_guesses(bench, admin: Client) -> None:
    client = bench.client()
    client.ask(SignIn(USER, PASSWORD), ASKED)
    guess = "guess"
    with flood(bench, lambda number: SignIn(USER, guess), clients=4, a_second=40.0):
        assert client.ask(ChangePassword(PASSWORD, PASSWORD * 2), ASKED)
        assert client.ask(SignIn(USER, PASSWORD * 2), ASKED).email == USER
        assert admin.ask(AddUser("new@lab", PASSWORD), ASKED)


def test_no_other_request_waits_for_passwords(bench, admin: Client, monkeypatch) -> None:
    """Though all that check passwords are at it, and many more wait."""
    go, busy = threading.Event(), threading.Semaphore(0)

    def verify(stored: str | None, password: str) -> bool:
        busy.release()
        go.wait(60)
        return False

    monkeypatch.setattr(passwords, "verify_password", verify)
    guessers = [bench.client() for _ in range(8)]
    for guesser in guessers:
        guesser.connection.wait_up(60.0)
    asked = [
        guesser.gateway.ask_future(SignIn(f"{number}@lab", "guess"), timeout=ASKED)
        for number, guesser in enumerate(guessers * 10)
    ]
    try:
        assert all(busy.acquire(timeout=60) for _ in range(passwords.AT_A_TIME))
        assert admin.ask(ListClusters()).clusters
        # What runs on the other workers, too.
        assert bench.client().refusal(Bind("no token")).code == Code.TOKEN_MALFORMED
    finally:
        go.set()
    codes = {future.exception(ASKED).code for future in asked}
    assert codes == {Code.BAD_CREDENTIALS, Code.RATE_LIMITED}


def refusals(guest: Client, message: object, count: int) -> Iterator[Refused]:
    """So many, of a guest who asks as often as it may at a time."""
    for first in range(0, count, GUEST_MESSAGES):
        few = range(first, min(count, first + GUEST_MESSAGES))
        for future in [guest.gateway.ask_future(message, timeout=ASKED) for _ in few]:
            refusal = future.exception(ASKED)
            assert isinstance(refusal, Refused)
            yield refusal


def test_who_tries_tokens_is_slowed_down_and_known_keys_are_not(bench, admin: Client) -> None:
    guest = bench.client()
    guest.connection.wait_up(60.0)
    codes = [refusal.code for refusal in refusals(guest, Bind("no.to.ken"), 700)]
    assert codes.count(Code.RATE_LIMITED) > 50
    assert admin.refusal(Bind("no.to.ken")).code == Code.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "message",
    [
        SignIn("a" * 201, PASSWORD),
        SignIn(USER, "a" * 1025),
        SignIn("a" * 3_900_000, PASSWORD),
        Bind("a" * 8193),
        Enroll("t", "a" * 201),
        Enroll("t", "a", "i" * 201),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_too_long_costs_a_stranger_the_link(bench, message) -> None:
    client = bench.client()
    client.connection.wait_up(60.0)
    with pytest.raises(ActorError):
        client.gateway.ask(message, timeout=10.0)
    wait_until(lambda: len(client.states) > 1)
    assert client.states[1] in (DownReason.CLOSED, DownReason.LOST, DownReason.PROTOCOL)


def test_what_a_stranger_gives_forges_no_line_of_the_log(bench, caplog) -> None:
    email = "a@b\n2030-01-01 00:00:00,000 INFO    manager/gateway: admin@localhost signed in"
    bench.client().refusal(SignIn(email, "x"))
    lines = [record.getMessage() for record in caplog.records if "a@b" in record.getMessage()]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert "\\n2030-01-01" in lines[0]


def test_guesses_are_logged_at_a_bounded_rate(bench, caplog) -> None:
    caplog.set_level(logging.WARNING)
    guest = bench.client()
    guest.connection.wait_up(60.0)
    for refusal in refusals(guest, Bind("x"), 400):
        assert refusal.code in (Code.TOKEN_MALFORMED, Code.RATE_LIMITED)
    lines = [one for one in caplog.records if "binding a token" in one.getMessage()]
    assert len(lines) <= 150


def test_a_sign_in_ends_the_oldest_session_of_who_has_too_many(bench, monkeypatch) -> None:
    monkeypatch.setattr(registrar, "MOST_KEYS", 3)
    clients = [bench.client() for _ in range(4)]
    for client in clients:
        client.ask(SignIn(USER, PASSWORD), ASKED)
        time.sleep(0.002)  # so that the times at which they signed in differ
    wait_until(lambda: clients[0].refusal(WhoAmI()).code == Code.NOT_SIGNED_IN)
    for client in clients[1:]:
        assert client.ask(WhoAmI()).email == USER


def test_signing_in_again_leaves_one_valid_token(bench) -> None:
    client = bench.client()
    tokens = [client.ask(SignIn(USER, PASSWORD), ASKED).token for _ in range(3)]
    for token in tokens:  # its own key may show all of them
        assert client.ask(Bind(token)).email == USER
    assert bench.client().refusal(Bind(tokens[0])).code == Code.TOKEN_REVOKED
