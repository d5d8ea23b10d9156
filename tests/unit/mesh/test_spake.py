"""The proof of a shared secret."""

from __future__ import annotations

import hashlib
import os

import pytest

from manta.mesh.spake import (
    ADMITS,
    JOINS,
    M,
    N,
    Side,
    WrongProof,
    check,
    keys_of,
    scalar_of,
    transcript,
)

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
Point = tuple[int, int]
BASE_Y = 4 * pow(5, P - 2, P) % P


def times(count: int, point: Point) -> Point:
    """By the formulas of RFC 8032, which share nothing with libsodium."""

    def add(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
        e, f = (y1 - x1) * (y2 - x2), (y1 + x1) * (y2 + x2)
        g, h = 2 * t1 * t2 * D, 2 * z1 * z2
        e, f, g, h = f - e, h - g, h + g, f + e
        return e * f % P, g * h % P, f * g % P, e * h % P

    found: tuple[int, ...] = (0, 1, 1, 0)
    wide: tuple[int, ...] = (*point, 1, point[0] * point[1] % P)
    while count:
        if count & 1:
            found = add(found, wide)
        wide = add(wide, wide)
        count >>= 1
    inverse = pow(found[2], -1, P)
    return found[0] * inverse % P, found[1] * inverse % P


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def decoded(data: bytes) -> Point:
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & (2**255 - 1)
    if y >= P:
        raise ValueError("no point")
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square or (not x and sign):
        raise ValueError("no point")
    return (P - x if x & 1 != sign else x), y


def encoded(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


@pytest.mark.parametrize(("letter", "constant"), [("M", M), ("N", N)], ids=["M", "N"])
def test_points_are_those_that_the_seeds_of_the_rfc_give(letter: str, constant: bytes) -> None:
    block = f"edwards25519 point generation seed ({letter})".encode()
    for _ in range(1000):
        block = hashlib.sha256(block).digest()
        try:
            point = decoded(block)
        except ValueError:
            continue
        if point != (0, 1) and times(ORDER, point) == (0, 1):
            break
    assert block == constant


def test_schedule_of_keys_is_that_of_the_vectors_of_the_rfc() -> None:
    w = "2ee57912099d31560b3a44b1184b9b4866e904c49d12ac5042c97dca461b1a5f"
    a = (
        "04a56fa807caaa53a4d28dbb9853b9815c61a411118a6fe516a8798434751470f9010153ac33d0d5f2047f"
        "fdb1a3e42c9b4e6be662766e1eeb4116988ede5f912c"
    )
    b = (
        "0406557e482bd03097ad0cbaa5df82115460d951e3451962f1eaf4367a420676d09857ccbc522686c83d18"
        "52abfa8ed6e4a1155cf8f1543ceca528afb591a1e0b7"
    )
    k = (
        "0412af7e89717850671913e6b469ace67bd90a4df8ce45c2af19010175e37eed69f75897996d539356e2fa"
        "6a406d528501f907e04d97515fbe83db277b715d3325"
    )
    parts = (b"server", b"client", *map(bytes.fromhex, (a, b, k, w)))
    keys = keys_of(transcript(*parts))
    assert keys.shared.hex() == "0e0672dc86f8e45565d338b0540abe69"
    assert keys.a.hex() == "58ad4aa88e0b60d5061eb6b5dd93e80d9c4f00d127c65b3b35b1b5281fee38f0"
    assert keys.b.hex() == "d3e2e547f1ae04f2dbdbf0fc4b79f8ecff2dff314b5d32fe9fcef2fb26dc459b"


def test_both_sides_agree_with_the_arithmetic_of_the_rfc() -> None:
    w = os.urandom(31) + b"\0"
    x, y = os.urandom(64), os.urandom(64)
    one, other = Side(w, x, joins=True), Side(w, y, joins=False)
    scalar = int.from_bytes(w, "little") % ORDER
    a, b = (int.from_bytes(given, "little") % ORDER for given in (x, y))
    base = decoded(BASE_Y.to_bytes(32, "little"))
    share_a = encoded(add(times(a, base), times(scalar, decoded(M))))
    share_b = encoded(add(times(b, base), times(scalar, decoded(N))))
    assert (one.share, other.share) == (share_a, share_b)
    shared = encoded(times(8 * a * b, base))
    expected = keys_of(transcript(JOINS, ADMITS, share_a, share_b, shared, w[::-1]))
    assert one.keys(other.share) == other.keys(one.share) == expected


def test_another_secret_gives_other_proofs() -> None:
    w, v = os.urandom(31) + b"\0", os.urandom(31) + b"\0"
    one, other = Side(w, os.urandom(64), joins=True), Side(v, os.urandom(64), joins=False)
    mine, theirs = one.keys(other.share), other.keys(one.share)
    with pytest.raises(WrongProof, match="another one"):
        check(mine.a, theirs.a)
    assert mine.shared != theirs.shared


@pytest.mark.parametrize(
    "share",
    [
        bytes(32),
        b"\x01" + bytes(31),  # the neutral element
        b"\xff" * 32,
        bytes.fromhex(
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"
        ),  # of order 8
        b"short",
    ],
    ids=["zero", "neutral", "too-large", "small-order", "short"],
)
def test_what_is_no_point_of_the_group_is_refused(share: bytes) -> None:
    side = Side(os.urandom(31) + b"\0", os.urandom(64), joins=False)
    with pytest.raises(WrongProof, match="no point"):
        side.keys(share)


def test_a_secret_is_stretched_alike_each_time() -> None:
    assert scalar_of("a secret") == scalar_of("a secret") != scalar_of("another")
