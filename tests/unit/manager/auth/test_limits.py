"""Whose password is checked, when, and whose is not."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest

from manta.actors.errors import Refused
from manta.manager.auth import limits
from manta.manager.auth.limits import Answers, Attempt, SignIns, TokenTries
from manta.protocol.codes import Code

HERE, THERE = "192.0.2.1", "192.0.2.2"
TOLD_TOO_MANY, TOLD_WRONG = "too many", "wrong"
keys = (f"key {number}" for number in itertools.count())


def attempt(
    account: str = "a@b",
    key: str = "",
    source: str = HERE,
    user: str = "",
    work: str = "",
    exists: bool = True,
    lot: float = 0.0,
) -> Attempt[str]:
    return Attempt(key or next(keys), source, account, user, work, exists, lot=lot)


def is_full(line: SignIns[str], one: Attempt[str], now: float = 0.0) -> bool:
    """Whether the attempt is refused at once."""
    try:
        line.join(one, now)
    except Refused:
        return True
    return False


def check_all(line: SignIns[str], now: float = 0.0, right: str = "right") -> list[str]:
    """Checks what waits, in its order; says what became of each."""
    said = []
    while (found := line.next(now)) is not None:
        one, refusal = found
        if refusal is not None:
            assert refusal.code == Code.RATE_LIMITED
            said.append(f"{one.work} refused")
            continue
        line.ended(one, now, failed=one.work != right)
        said.append(one.work)
    return said


def guess(line: SignIns[str], *guesses: Attempt[str], now: float = 0.0) -> Counter[str]:
    refused = [f"{one.work} refused" for one in guesses if is_full(line, one, now)]
    return Counter([*refused, *check_all(line, now)])


def spend(line: SignIns[str], *, source: str = HERE, exists: bool = True, now: float = 0.0) -> None:
    """All that strangers of the address may guess at once."""
    for _ in range(300):
        one = attempt(work="wrong", source=source, exists=exists)
        line.join(one, now)
        check_all(line, now)
        assert not one.slow


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
    line.ended(of_b, 0.0, failed=True)
    assert line.next(0.0) is None, "the other key's is under way"
    line.ended(of_a, 0.0, failed=False)
    assert check_all(line, right="second") == ["second", "third"]
    assert len(line) == 0


def test_no_user_waits_for_long() -> None:
    line: SignIns[str] = SignIns()
    line.join(attempt(user="u", work="right"), 0.0)
    line.join(attempt(user="u", work="right"), 5.0)
    assert check_all(line, now=limits.PATIENCE + 1) == ["right refused", "right"]
    assert guess(line, attempt(work="right"), now=20.0) == {"right": 1}


def test_a_stranger_waits_until_a_failure_is_due() -> None:
    line: SignIns[str] = SignIns()
    checked, right, late = (attempt(lot=float(number)) for number in range(3))
    for one in (checked, right, late):
        line.join(one, 0.0)
    assert {one.due for one in (checked, right, late)} == {Answers.AFTER}
    for expected in (checked, right):
        assert (line.next(0.0) or (None,))[0] is expected
    line.ended(checked, 0.1, failed=True)
    line.ended(right, 0.1, failed=False)
    assert line.fails(checked, 1.0)
    assert not line.fails(right, 1.0)
    assert len(line) == 1
    assert line.fails(late, 1.0)
    assert len(line) == 0


@pytest.mark.parametrize("check", [0.15, 0.9, 1.2])
@pytest.mark.parametrize("accounts", [1, 12])
def test_a_right_password_is_not_told_as_wrong_where_checks_are_slow(
    check: float, accounts: int
) -> None:
    """Of a dozen that come at once, when no check has shown yet how long they take."""
    line: SignIns[str] = SignIns()
    waiting = [attempt(f"{number % accounts}@b") for number in range(12)]
    for one in waiting:
        line.join(one, 0.0)
    now, under_way = 0.0, list[tuple[float, Attempt[str]]]()
    while waiting:
        for over, one in [one for one in under_way if one[0] <= now]:
            under_way.remove((over, one))
            line.ended(one, now, failed=False)
            waiting.remove(one)
        while (found := line.next(now)) is not None:
            under_way.append((now + check, found[0]))
        for one in waiting:
            assert one.due is not None
            assert one.due > now or not line.fails(one, now)
        now += 1 / 64


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
    spend(line)
    checked = sum(
        guess(line, *(attempt(work="wrong") for _ in range(5)), now=quarter / 4).total()
        for quarter in range(4, 404)
    )
    assert 95 <= checked <= 105, "once a second"
    one = attempt()
    line.join(one, 101.0)
    assert one.failure is not None
    assert "with this address from where you are" in one.failure.sentence
    # From elsewhere, for another account, and with a key of the user's, it is as before.
    for other in (
        attempt(work="right", source=THERE),
        attempt("c@d", work="right"),
        attempt(work="right", user="u"),
    ):
        assert guess(line, other, now=101.0)["right"] == 1
        assert not other.slow


@pytest.mark.parametrize("a_second", [3.5, 10, 50])
def test_a_guesser_at_the_address_of_a_user_holds_no_place_before_the_right_password(
    a_second: float,
) -> None:
    """However he times what he sends, and though each comes with a new key: of what is checked,
    the right password's share is what it is of all that is tried."""
    line, draw = SignIns[str](), random.Random(1)
    spend(line)
    now = next_guess = next_right = 0.0
    tried = Counter[str]()
    signed_in = 0
    due: list[Attempt[str]] = []
    while now < 800:
        now += 1 / 16
        while next_guess <= now:
            next_guess += 1 / a_second
            due.append(attempt(work="wrong", lot=draw.random()))
        while next_right <= now:
            next_right += 6.0
            due.append(attempt(work="right", lot=draw.random()))
        for one in due[-64:]:
            if one.due is None:
                line.join(one, now)
                tried[one.work] += 1
        for one in [one for one in due if one.due is not None and one.due <= now]:
            assert one.failure is not None or not one.slow
            line.fails(one, now)
            due.remove(one)
        signed_in += check_all(line, now).count("right")
    share = tried["right"] / tried.total()
    assert signed_in > 0.5 * share * 800


def test_a_key_that_sends_more_is_not_checked_more_often_for_that() -> None:
    """Once too many have failed: thirty keys that guess as often as they may, and a user's, which
    tries as often as one waits for an answer."""
    line, draw, signed_in, tried = SignIns[str](), random.Random(1), 0, 0
    spend(line)
    due: list[Attempt[str]] = []
    for tick in range(1200):
        now, open_ = float(tick), Counter(one.key for one in due)
        new = [
            attempt(key=f"guesser {one}", work="wrong", lot=draw.random())
            for one in range(30)
            for _ in range(8 - open_[f"guesser {one}"])
        ]
        if tick % 6 == 0:
            new.append(attempt(key="user", work="right", lot=draw.random()))
            tried += 1
        due += [one for one in new if not is_full(line, one, now)]
        signed_in += check_all(line, now).count("right")
        due = [one for one in due if one.due is None or one.due > now or not line.fails(one, now)]
    assert signed_in > tried / 15


@pytest.mark.parametrize("exists", [True, False])
def test_addresses_that_are_made_up_give_a_guesser_nothing_back(exists: bool) -> None:
    line: SignIns[str] = SignIns()
    spend(line, exists=exists)
    for number in range(3 * limits.KEPT):
        line.join(attempt(f"{number}@b", key=f"key {number // 5}", exists=False), 0.0)
    for _ in range(10):
        one = attempt(exists=exists)
        line.join(one, 0.0)
        assert one.slow


def test_keys_that_are_made_up_give_a_guesser_nothing_back() -> None:
    line: SignIns[str] = SignIns()
    assert guess(line, *(attempt(key="k", work="wrong") for _ in range(5))) == {"wrong": 5}
    for number in range(3 * limits.KEPT):
        line.join(attempt(f"{number}@b", exists=False), 0.0)
    assert is_full(line, attempt(key="k"))


def test_tokens_that_are_tried_from_many_addresses_give_none_of_them_anything_back() -> None:
    tries = TokenTries()
    for _ in range(500):
        tries.check(HERE, 0.0)
    for number in range(3 * limits.KEPT):
        tries.check(f"198.51.{number // 250}.{number % 250}", 0.0)
    with pytest.raises(Refused):
        tries.check(HERE, 0.0)


def test_right_passwords_are_no_failures() -> None:
    line: SignIns[str] = SignIns()
    for _ in range(1000):
        assert guess(line, attempt(work="right")) == {"right": 1}


@pytest.mark.parametrize("accounts", [1, 10])
def test_a_new_key_does_not_wait_behind_the_guesses_of_others(accounts: int) -> None:
    """From its own address, and for its own account, too."""
    line: SignIns[str] = SignIns()
    guessers = [next(keys) for _ in range(50)]
    for one in guessers:
        guess(line, attempt(key=one, work="wrong"))
    for number in range(400):
        account = f"{number % accounts}@b"
        is_full(line, attempt(account, key=guessers[number % 50], work="wrong"))
    victim = attempt("0@b", work="right", lot=1.0)
    line.join(victim, 0.0)
    assert "right" in check_all(line)[:accounts]


def test_an_unknown_account_takes_nothing_from_users() -> None:
    line: SignIns[str] = SignIns()
    for number in range(1000):
        line.join(attempt(f"{number}@b", work="unknown", exists=False), 0.0)
    for _ in range(10):
        line.join(attempt(work="right"), 0.0)
    checked = check_all(line)
    assert checked[:10] == ["right"] * 10
    assert set(checked[10:]) == {"unknown"}
    assert len(checked) <= 12
    line.join(attempt("new@b", work="unknown", exists=False), 0.0)
    assert check_all(line) == ["unknown"], "the same work is done when there is time"


Told = tuple[float, str]


def told(exists: bool, tried: list[tuple[float, str, str]], check: float) -> list[Told]:
    """When and as what each of these failures is told: of a time, a key and an address. `check` is
    how long each check takes."""
    line, log = SignIns[str](), list[Told]()
    attempts: list[Attempt[str]] = []
    under_way: list[tuple[float, Attempt[str]]] = []

    step, now, tried = 1 / 64, 0.0, list(tried)
    while tried or attempts or under_way:
        for over in [one for one in under_way if one[0] <= now]:
            under_way.remove(over)
            line.ended(over[1], now, failed=True)
        while tried and tried[0][0] <= now:
            _, key, source = tried.pop(0)
            one = attempt(
                "u@b",
                key,
                source,
                work=f"{len(tried)}",
                exists=exists,
                lot=float(len(tried) * 7919 % 101),
            )
            if is_full(line, one, now):
                log.append((round(now, 3), TOLD_TOO_MANY))
            else:
                attempts.append(one)
        while (found := line.next(now)) is not None:
            under_way.append((now + check, found[0]))
        for one in [one for one in attempts if one.due is not None and one.due <= now]:
            if line.fails(one, now):
                attempts.remove(one)
                log.append((round(now, 3), TOLD_TOO_MANY if one.failure else TOLD_WRONG))
        now += step
    return sorted(log)


AT_ONCE = [(0.0, f"key {number % 8}", HERE) for number in range(40)]
NEW_KEYS = [(0.0, f"key {number}", HERE) for number in range(100)]
FLOOD = [(number / 50, f"key {number}", HERE) for number in range(600)]
MANY_PLACES = [(0.0, f"key {number}", f"192.0.2.{number % 9}") for number in range(300)]
SLOWLY = [(number / 50, f"key {number % 90}", HERE) for number in range(400)]


@pytest.mark.parametrize("check", [0.02, 0.15, 0.6])
@pytest.mark.parametrize("tried", [AT_ONCE, NEW_KEYS, FLOOD, MANY_PLACES, SLOWLY])
def test_what_fails_is_told_alike_whether_or_not_there_is_such_an_account(
    tried: list[tuple[float, str, str]], check: float
) -> None:
    first = [(-20.0 + number, f"earlier {number}", THERE) for number in range(5)]
    tried = [(at + 20.0, key, source) for at, key, source in first + tried]
    assert told(True, tried, check) == told(False, tried, check)


def test_failures_are_told_when_all_before_them_may_have_been_checked() -> None:
    answers = Answers()
    places = [answers.join("a@b") for _ in range(100)]
    assert places[: Answers.MOST] == list(range(1, Answers.MOST + 1))
    assert set(places[Answers.MOST :]) == {0}
    after = [answers.after(place) for place in places]
    assert after[:6] == [1.0] * 6
    assert after[6:14] == [1.125, 1.25, 1.375, 1.5, 1.625, 1.75, 1.875, 2.0]
    assert answers.after(0) == 1.0
    others = [answers.join(f"{number}@b") for number in range(200)]
    assert max(map(answers.after, others)) == Answers.LONGEST
    for _ in range(Answers.MOST):
        answers.leave("a@b")
    assert answers.join("a@b") > 0


def test_failures_are_told_later_where_checks_take_longer() -> None:
    answers = Answers()
    answers.takes(0.9, 100.0)
    assert [answers.after(place) for place in (0, 1, 2, 3, 4)] == [2.0, 2.0, 2.0, 2.5, 3.0]
    answers.takes(0.1, 101.0)
    assert answers.after(0) == 2.0
    answers.takes(0.1, 161.0)
    assert answers.after(0) == 1.0
    answers.takes(1000.0, 161.0)
    assert answers.after(0) == 2 * Answers.SLOWEST


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
    line.join(attempt(source=THERE, work="right"), 0.0)
    for _ in range(1000):
        is_full(line, attempt(key="flood", work="wrong"))
    for number in range(1000):
        line.join(attempt(work="wrong", lot=float(number)), 0.0)
    for number in range(1000):  # from many places
        line.join(attempt(source=f"198.51.{number}.1", work="wrong"), 0.0)
    assert len(line) <= 2 * limits.MOST_WAITING
    assert "right" in check_all(line)


def test_a_user_whose_keys_flood_pushes_out_his_own() -> None:
    line: SignIns[str] = SignIns()
    other = attempt(user="other", work="right")
    assert line.join(other, 0.0) is None
    gone = [line.join(attempt(user="u", work="wrong"), 0.0) for _ in range(1000)]
    assert {one.user for one in gone if one is not None} == {"u"}
    assert "right" in check_all(line)


def test_new_passwords_are_hashed_however_many_are_given_at_once() -> None:
    line: SignIns[str] = SignIns()

    def new(key: str) -> Attempt[str]:
        return Attempt(key, "", "admin@lab", "admin", "right", is_new=True)

    assert [line.join(new(f"key {number % 3}"), 0.0) for number in range(100)] == [None] * 100
    line.join(attempt(work="right of a stranger"), 0.0)
    checked = check_all(line, now=60.0)
    assert "right of a stranger" in checked[:3], "and others have their turn"
    assert checked.count("right") == 100
    gone = [line.join(new("key"), 0.0) for _ in range(1000)]
    assert len(line) <= limits.MOST_WAITING
    assert len([one for one in gone if one is not None]) == 1000 - len(line)


def test_one_that_has_tried_gives_way_to_one_that_has_not() -> None:
    line: SignIns[str] = SignIns()
    for number in range(limits.MOST_IN_A_LANE):
        line.join(attempt(key=f"flood {number // 4}", work="flood"), 0.0)
    line.join(attempt(work="new"), 0.0)
    checked = check_all(line)
    assert len(checked) == limits.MOST_IN_A_LANE
    assert "new" in checked[:8]


def test_what_is_remembered_of_strangers_is_bounded() -> None:
    line: SignIns[str] = SignIns()
    for number in range(limits.KEPT + 100):
        guess(line, attempt(f"{number}@b", work="wrong"))
    assert len(line._own) <= limits.KEPT
    assert len(line._guesses) <= limits.KEPT
    assert line._answers._open.total() <= 2 * Answers.LONGEST / Answers.FASTEST


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
