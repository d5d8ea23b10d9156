from __future__ import annotations

from manta.actors.errors import Refused
from manta.manager.auth.principals import GuestLimits, Kind, Principal, Principals
from manta.manager.store.records import KeyKind, KeyRecord, NodeRecord, UserRecord
from manta.protocol.codes import Code


def test_keys_are_looked_up_in_what_the_store_holds() -> None:
    principals = Principals()
    principals.load(
        [
            KeyRecord("kn", KeyKind.NODE, "n1", 0.0),
            KeyRecord("ku", KeyKind.USER, "u1", 0.0),
            KeyRecord("kr", KeyKind.REMOVED, "n2", 0.0),
            KeyRecord("kx", KeyKind.NODE, "of no node", 0.0),
        ],
        [NodeRecord("n1", "c1", "alias", "kn", 0.0)],
        [UserRecord("u1", "a@b", "", 0.0)],
    )
    assert principals.of("kn") == Principal(Kind.NODE, "kn", "n1", "alias", "c1")
    assert principals.of("ku") == Principal(Kind.USER, "ku", "u1", "a@b", admin=True)
    assert principals.of("kr").kind is Kind.REMOVED
    assert principals.of("kx").kind is principals.of("nobody").kind is Kind.GUEST


def allowed(tries: int, check: object, *arguments: object) -> int:
    assert callable(check)
    passed = 0
    for _ in range(tries):
        try:
            check(*arguments)
        except Refused as no:
            if no.code != Code.RATE_LIMITED:
                raise
            continue
        passed += 1
    return passed


def fail(limits: GuestLimits, email: str, now: float) -> None:
    assert limits.begin_sign_in(email, now)
    limits.end_sign_in(email, failed=True)


def test_failing_sign_ins_of_one_user_are_slowed_down() -> None:
    limits = GuestLimits()
    assert allowed(10, fail, limits, "a@b", 0.0) == 5
    assert allowed(10, fail, limits, "a@b", 60.0) == 5


def test_success_forgets_the_failures_before() -> None:
    limits = GuestLimits()
    for now in range(100):
        assert limits.begin_sign_in("a@b", 0.0), now
        limits.end_sign_in("a@b", failed=False)


def test_sign_ins_side_by_side_wait_for_each_other_and_then_count_as_what_they_were() -> None:
    limits = GuestLimits()
    begun = sum(limits.begin_sign_in("a@b", 0.0) for _ in range(30))
    assert begun == 5
    for _ in range(5):
        limits.end_sign_in("a@b", failed=False)
    assert sum(limits.begin_sign_in("a@b", 0.0) for _ in range(30)) == 5
    for _ in range(5):
        limits.end_sign_in("a@b", failed=True)
    assert allowed(1, limits.begin_sign_in, "a@b", 0.0) == 0


def test_sign_ins_of_all_users_together_are_slowed_down() -> None:
    limits = GuestLimits()
    passed = sum(allowed(1, fail, limits, f"{n}@b", 0.0) for n in range(100))
    assert passed == 20


def test_a_cluster_may_enrol_at_once_and_a_guesser_may_not_go_on() -> None:
    limits = GuestLimits()
    assert allowed(2000, limits.check_token, 0.0) == 500
    assert allowed(2000, limits.check_token, 1.0) == 50


def test_addresses_that_were_tried_do_not_pile_up() -> None:
    limits = GuestLimits()
    for number in range(GuestLimits.ADDRESSES + 50):
        fail(limits, f"{number}@b", float(number))
    assert len(limits._failures) == GuestLimits.ADDRESSES
