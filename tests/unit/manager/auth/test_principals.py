from __future__ import annotations

from manta.manager.auth.principals import Kind, Principal, Principals, with_expiry
from manta.manager.store.records import KeyKind, KeyRecord, NodeRecord, TokenRecord, UserRecord
from manta.protocol.tokens import NODE_AUDIENCE, USER_AUDIENCE


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


class Clock:
    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def test_a_key_is_its_users_until_its_token_expires() -> None:
    clock = Clock()
    principals = Principals(clock)
    keys = [
        KeyRecord("for ever", KeyKind.USER, "u1", 0.0),
        KeyRecord("soon", KeyKind.USER, "u1", 0.0, "f", expires_at=1010.0),
        KeyRecord("later", KeyKind.USER, "u1", 0.0, "f", expires_at=1020.0),
    ]
    principals.load(keys, [], [UserRecord("u1", "a@b", "", 0.0)])
    assert principals.of("soon").kind is Kind.USER
    assert (principals.expired(), principals.first_expiry()) == ([], 1010.0)
    clock.at = 1010.0
    assert principals.of("soon").kind is Kind.GUEST
    assert principals.of("later").kind is principals.of("for ever").kind is Kind.USER
    assert principals.expired() == ["soon"]
    principals.forget("soon")
    assert (principals.expired(), principals.first_expiry()) == ([], 1020.0)
    principals.forget("later")
    assert principals.first_expiry() is None


def test_what_an_earlier_version_stored_expires_with_the_tokens_of_its_family() -> None:
    keys = [
        KeyRecord("of none", KeyKind.USER, "u", 0.0),
        KeyRecord("a node's", KeyKind.NODE, "n", 0.0, "a"),
        KeyRecord("first", KeyKind.USER, "u", 0.0, "a"),
        KeyRecord("rotated", KeyKind.USER, "u", 0.0, "b"),
        KeyRecord("its token is gone", KeyKind.USER, "u", 0.0, "c"),
        KeyRecord("new", KeyKind.USER, "u", 0.0, "a", expires_at=7.0),
    ]
    tokens = [
        TokenRecord("a", USER_AUDIENCE, "u", 50.0),
        TokenRecord("b", USER_AUDIENCE, "u", 60.0, revoked="rotated"),
        TokenRecord("b2", USER_AUDIENCE, "u", 70.0, family="b"),
        TokenRecord("c", NODE_AUDIENCE, "u", 80.0),
    ]
    found = {key.key: key.expires_at for key in with_expiry(keys, tokens)}
    assert found == {
        "of none": None,
        "a node's": None,
        "first": 50.0,
        "rotated": 70.0,
        "its token is gone": 0.0,
        "new": 7.0,
    }
