"""Whose password is checked, when, and whose is not."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from manta.actors.errors import Refused
from manta.manager.auth import limits
from manta.manager.auth.limits import Answers, Attempt, SignIns, TokenTries
from manta.protocol.codes import Code

HERE, THERE = "192.0.2.1", "192.0.2.2"
keys = (f"key {number}" for number in itertools.count())


def attempt(
    account: str = "a@b", key: str = "", source: str = HERE, user: str = "", work: str = ""
) -> Attempt[str]:
    return Attempt(key or next(keys), source, account, user, work)


def check_all(line: SignIns[str], now: float = 0.0, right: str = "right") -> list[str]:
    """Checks what waits, in its order; says what became of each."""
    said = []
    while (found := line.next(now)) is not None:
        one, refusal = found
        if refusal is not None:
            assert refusal.code == Code.RATE_LIMITED
            said.append(f"{one.work} refused")
            continue
        line.ended(one, failed=one.work != right)
        said.append(one.work)
    return said


def guess(line: SignIns[str], *guesses: Attempt[str], now: float = 0.0) -> Counter[str]:
    for one in guesses:
        assert line.join(one, now) is None
    return Counter(check_all(line, now))


def test_two_are_checked_at_a_time_and_one_of_a_key() -> None:
    line: SignIns[str] = SignIns()
    for key, work in (("a", "first"), ("a", "second"), ("a", "third"), ("b", "other")):
        line.join(attempt(key=key, work=work), 0.0)
    first, second = line.next(0.0), line.next(0.0)
    assert first is not None
    assert second is not None
    assert {first[0].work, second[0].work} == {"first", "other"}
    assert line.next(0.0) is None
    of_a, of_b = sorted((first[0], second[0]), key=lambda one: one.key)
    line.ended(of_b, failed=True)
    assert line.next(0.0) is None, "the other key's is under way"
    line.ended(of_a, failed=False)
    assert check_all(line, right="second") == ["second", "third"]
    assert len(line) == 0


def test_nobody_waits_for_long() -> None:
    line: SignIns[str] = SignIns()
    line.join(attempt(work="right"), 0.0)
    line.join(attempt(work="right"), 5.0)
    assert check_all(line, now=limits.PATIENCE + 1) == ["right refused", "right"]
    assert guess(line, attempt(work="right"), now=20.0) == {"right": 1}


def test_a_key_that_fails_is_slowed_down() -> None:
    line: SignIns[str] = SignIns()

    def fail(now: float) -> Counter[str]:
        return guess(line, *(attempt(key="k", work="wrong") for _ in range(10)), now=now)

    assert fail(0.0) == {"wrong": 5, "wrong refused": 5}
    assert fail(60.0) == {"wrong": 5, "wrong refused": 5}
    assert guess(line, attempt(work="right")) == {"right": 1}


def test_success_forgets_what_a_key_had_failed() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(20):
        tries = [attempt(key="k", work=word) for word in ("wrong", "wrong", "right")]
        assert guess(line, *tries) == {"wrong": 2, "right": 1}


def test_new_keys_do_not_help_a_guesser_for_ever() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(300):
        assert guess(line, attempt(work="wrong")) == {"wrong": 1}
    assert guess(line, attempt(work="wrong")) == {"wrong refused": 1}
    line.join(attempt(), 0.0)
    _, refusal = line.next(0.0) or (None, None)
    assert refusal is not None
    assert "with this address from where you are" in refusal.sentence
    assert guess(line, attempt(work="wrong"), now=1.0) == {"wrong": 1}
    # From elsewhere, for another account, and with a key of the user's, it is as before.
    assert guess(line, attempt(work="right", source=THERE), now=1.0) == {"right": 1}
    assert guess(line, attempt("c@d", work="right"), now=1.0) == {"right": 1}
    assert guess(line, attempt(work="right", user="u"), now=1.0) == {"right": 1}


def test_right_passwords_are_no_failures() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(1000):
        assert guess(line, attempt(work="right")) == {"right": 1}


@pytest.mark.parametrize("accounts", [1, 10])
def test_a_new_key_does_not_wait_behind_the_guesses_of_others(accounts: int) -> None:
    """From its own address, and for its own account, too."""
    line: SignIns[str] = SignIns()
    guessers = [next(keys) for _ in range(10)]
    for one in guessers:
        guess(line, attempt(key=one, work="wrong"))
    for number in range(200):
        account = f"{number % accounts}@b"
        line.join(attempt(account, key=guessers[number % 10], work="wrong"), 0.0)
    victim = attempt("0@b", work="right")
    assert line.join(victim, 0.0) is not victim
    assert "right" in check_all(line)[:accounts]


def test_an_unknown_account_takes_nothing_from_users() -> None:
    line: SignIns[str] = SignIns()
    for number in range(1000):
        line.fail(Attempt(next(keys), HERE, f"{number}@b", "", "unknown", exists=False), 0.0)
    for _ in range(10):
        line.join(attempt(work="right"), 0.0)
    checked = check_all(line)
    assert checked[:10] == ["right"] * 10
    assert set(checked[10:]) == {"unknown"}
    assert len(checked) <= 12
    line.fail(Attempt(next(keys), HERE, "new@b", "", "unknown", exists=False), 0.0)
    assert check_all(line) == ["unknown"], "the same work is done when there is time"


def test_what_fails_is_refused_alike_whether_or_not_there_is_such_an_account() -> None:
    known, unknown = SignIns[str](), SignIns[str]()
    for number in range(400):
        key = f"key {number % 90}"
        refusal = unknown.fail(Attempt(key, HERE, "u@b", "", "wrong", exists=False), number / 50)
        said = guess(known, attempt(key=key, work="wrong"), now=number / 50)
        assert said == {"wrong" if refusal is None else "wrong refused": 1}, number


def test_failures_at_an_account_are_told_at_a_pace() -> None:
    answers = Answers()
    told = [answers.at("a@b", 100.0) for _ in range(100)]
    assert told[0] == (101.0, False)
    assert told[1] == (101.125, False)
    in_turn = [at for at, crowded in told if not crowded]
    assert in_turn == sorted(set(in_turn))
    assert max(in_turn) <= 100.0 + Answers.LONGEST
    assert {at for at, crowded in told if crowded} == {101.0}
    assert answers.at("c@d", 100.0) == (101.0, False)
    assert answers.at("a@b", 200.0) == (201.0, False)
    for number in range(limits.KEPT + 10):
        answers.at(f"{number}@b", 0.0)
    assert len(answers._last) == limits.KEPT


def test_sources_take_turns() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(limits.MOST_IN_A_LANE):
        line.join(attempt(work="wrong"), 0.0)
    line.join(attempt(source=THERE, work="right"), 0.0)
    assert "right" in check_all(line)[:2]


def test_known_users_and_strangers_take_turns() -> None:
    line: SignIns[str] = SignIns()
    for number in range(100):
        line.join(attempt(source=f"192.0.2.{number}", work="wrong"), 0.0)
        line.join(attempt(user="u", work="right"), 0.0)
    line.join(attempt(user="another", work="another's"), 0.0)
    checked = check_all(line)
    assert "another's" in checked[:4]
    assert checked[:20].count("wrong") >= 8


def test_who_floods_pushes_out_what_is_his_own() -> None:
    line: SignIns[str] = SignIns()
    victim = attempt(source=THERE, work="right")
    assert line.join(victim, 0.0) is None
    gone = [line.join(attempt(key="flood", work="wrong"), 0.0) for _ in range(1000)]
    assert {one.key for one in gone if one is not None} == {"flood"}
    for number in range(1000):  # from many places
        gone.append(line.join(attempt(source=f"198.51.{number}.1", work="wrong"), 0.0))
    assert victim not in gone
    assert len(line) <= limits.MOST_WAITING
    assert "right" in check_all(line)


def test_one_that_has_tried_gives_way_to_one_that_has_not() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(limits.MOST_IN_A_LANE):
        line.join(attempt(key="flood"), 0.0)
    new = attempt()
    gone = line.join(new, 0.0)
    assert gone is not None
    assert gone is not new
    found = line.next(0.0)
    assert found is not None
    assert found[0].tries == 0


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    line: SignIns[str] = SignIns()
    for number in range(limits.KEPT + 100):
        guess(line, attempt(f"{number}@b", work="wrong"))
    assert len(line._own) <= limits.KEPT
    assert len(line._guesses) <= limits.KEPT
    assert len(line._tries) <= limits.KEPT


def test_strangers_who_try_tokens_slow_down_their_own_address_alone() -> None:
    tries = TokenTries()

    def allowed(who: str, now: float) -> int:
        passed = 0
        for _ in range(2000):
            try:
                tries.check(who, now)
            except Refused:
                continue
            passed += 1
        return passed

    assert allowed(HERE, 0.0) == 500  # as many as a cluster that enrols at once
    assert allowed(HERE, 1.0) == 50
    assert allowed(THERE, 1.0) == allowed("a known key", 1.0) == 500
