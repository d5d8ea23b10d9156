from __future__ import annotations

import statistics
import threading
import time

import pytest

from manta.manager.auth import passwords
from manta.manager.auth.passwords import hash_password, random_password, verify_password


@pytest.fixture(scope="module")
def stored() -> str:
    return hash_password("correct horse")


def test_only_the_right_password_fits(stored: str) -> None:
    assert verify_password(stored, "correct horse")
    assert not verify_password(stored, "Correct horse")
    assert not verify_password(stored, "")


def test_a_hash_is_salted_and_is_argon2id_of_64_mib(stored: str) -> None:
    assert stored.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
    assert hash_password("correct horse") != stored


def test_nobody_has_no_password_and_the_same_costs(stored: str) -> None:
    assert passwords._NOBODY.split("$")[:4] == stored.split("$")[:4]
    for nobody in (None, ""):
        assert not verify_password(nobody, "correct horse")
        assert not verify_password(nobody, "")


def test_an_unknown_user_takes_as_long_as_a_wrong_password(stored: str) -> None:
    def cost(hash_: str | None) -> float:
        took = []
        for _ in range(3):
            start = time.thread_time()
            verify_password(hash_, "wrong")
            took.append(time.thread_time() - start)
        return statistics.median(took)

    known, unknown = cost(stored), cost(None)
    assert 0.5 < unknown / known < 2.0


def test_no_more_than_two_are_hashed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from nacl.pwhash import argon2id

    two, room = threading.Barrier(2), []

    def verify(stored: bytes, password: bytes) -> bool:
        two.wait(60)
        room.append(passwords._slots.acquire(blocking=False))  # while both are here
        two.wait(60)
        return True

    monkeypatch.setattr(argon2id, "verify", verify)
    threads = [threading.Thread(target=verify_password, args=("x", "y")) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room == [False] * 8


def test_a_random_password_is_long_and_new() -> None:
    assert len({random_password() for _ in range(100)}) == 100
    assert len(random_password().replace("-", "")) == 24
