from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from manta.actors.errors import Refused
from manta.manager.auth.tokens import LEEWAY, TokenAuthority, digest_of, new_seed
from manta.protocol.codes import Code
from manta.protocol.tokens import (
    NODE_AUDIENCE,
    USER_AUDIENCE,
    UnreadableToken,
    fingerprint,
    peek,
)

NOW = 1_800_000_000.0
MANAGER, STRANGER, KEY, OTHER = ("M" * 40, "S" * 40, "k" * 40, "o" * 40)
SEED = bytes(range(32))
AUTHORITY = TokenAuthority(SEED, MANAGER)


def verify(token: str, audience: str = NODE_AUDIENCE, by: str = KEY, now: float = NOW) -> Any:
    return AUTHORITY.verify(token, audience, presented_by=by, now=now)


def refusal(token: str, **how: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        verify(token, **how)
    return caught.value


def test_what_was_issued_is_accepted() -> None:
    token, claims = AUTHORITY.issue(NODE_AUDIENCE, "cluster", now=NOW, ttl=900)
    assert verify(token) == claims == verify(f" {token}\n")
    assert claims == peek(token)
    assert (claims.subject, claims.manager_key, claims.bound_to) == ("cluster", MANAGER, None)
    assert claims.issuer == fingerprint(MANAGER)
    assert claims.expires_at == NOW + 900
    assert len(bytes.fromhex(claims.id)) * 8 >= 128


def test_a_bound_token_is_good_for_its_key_alone() -> None:
    token, claims = AUTHORITY.issue(USER_AUDIENCE, "u", now=NOW, ttl=900, bound_to=KEY)
    assert claims.bound_to == KEY
    assert verify(token, USER_AUDIENCE, by=KEY) == claims
    no = refusal(token, audience=USER_AUDIENCE, by=OTHER)
    assert no.code == Code.TOKEN_KEY
    assert "bound to another key" in no.sentence


def test_each_fault_has_a_code_and_a_sentence_of_its_own() -> None:
    token, _ = AUTHORITY.issue(NODE_AUDIENCE, "c", now=NOW, ttl=900)
    bound, _ = AUTHORITY.issue(NODE_AUDIENCE, "c", now=NOW, ttl=900, bound_to=OTHER)
    foreign, _ = TokenAuthority(SEED, STRANGER).issue(NODE_AUDIENCE, "c", now=NOW, ttl=900)
    found = [
        refusal(""),
        refusal("nonsense"),
        refusal(token, now=NOW + 900 + LEEWAY),
        refusal(foreign),
        refusal(token, audience=USER_AUDIENCE),
        refusal(bound),
    ]
    assert [no.code for no in found] == [
        Code.TOKEN_MISSING,
        Code.TOKEN_MALFORMED,
        Code.TOKEN_EXPIRED,
        Code.TOKEN_FOREIGN,
        Code.TOKEN_AUDIENCE,
        Code.TOKEN_KEY,
    ]
    assert len({no.sentence for no in found}) == len(found)
    for no in found:
        assert token not in no.sentence
        assert no.sentence.endswith(".")


def test_clocks_may_differ_by_the_leeway_and_no_more() -> None:
    token, _ = AUTHORITY.issue(NODE_AUDIENCE, "c", now=NOW, ttl=900)
    verify(token, now=NOW + 900 + LEEWAY - 1)
    verify(token, now=NOW - LEEWAY)
    assert refusal(token, now=NOW - LEEWAY - 1).code == Code.TOKEN_MALFORMED
    assert LEEWAY <= 30


def test_a_users_token_expires_to_the_second() -> None:
    """With it ends what its key may do."""
    token, _ = AUTHORITY.issue(USER_AUDIENCE, "u", now=NOW, ttl=900)
    verify(token, USER_AUDIENCE, now=NOW + 899)
    assert refusal(token, audience=USER_AUDIENCE, now=NOW + 900).code == Code.TOKEN_EXPIRED


def test_a_caller_may_compare_the_key_itself() -> None:
    token, claims = AUTHORITY.issue(USER_AUDIENCE, "u", now=NOW, ttl=900, bound_to=OTHER)
    assert AUTHORITY.verify(token, USER_AUDIENCE, presented_by=None, now=NOW) == claims


# Forgeries.


def part(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


CLAIMS: dict[str, Any] = {
    "iss": fingerprint(MANAGER),
    "sub": "c",
    "aud": NODE_AUDIENCE,
    "exp": int(NOW + 900),
    "iat": int(NOW),
    "jti": "0" * 32,
    "mgr": MANAGER,
}
GOOD = jwt.encode(CLAIMS, Ed25519PrivateKey.from_private_bytes(SEED), algorithm="EdDSA")
HEAD, BODY, SIGNATURE = GOOD.split(".")
PUBLIC = Ed25519PrivateKey.from_private_bytes(SEED).public_key()
PUBLIC_PEM = PUBLIC.public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
ANOTHER = Ed25519PrivateKey.from_private_bytes(new_seed())
DEEP = b', "more": ' + b"[" * 2000
DEEP_HEAD = b'{"alg": "EdDSA"' + DEEP


def signed(claims: dict[str, Any], key: Any = None, **header: Any) -> str:
    key = key or Ed25519PrivateKey.from_private_bytes(SEED)
    return jwt.encode(claims, key, algorithm="EdDSA", headers=header or None)


def hmac_over_the_public_key() -> str:
    import hashlib
    import hmac

    head = part({"alg": "HS256", "typ": "JWT"})
    mac = hmac.digest(PUBLIC_PEM, f"{head}.{BODY}".encode(), hashlib.sha256)
    return f"{head}.{BODY}.{part(mac)}"


def without(claim: str) -> dict[str, Any]:
    return {name: value for name, value in CLAIMS.items() if name != claim}


FORGED = {
    "algorithm none": f"{part({'alg': 'none'})}.{BODY}.",
    "algorithm none, signature kept": f"{part({'alg': 'none'})}.{BODY}.{SIGNATURE}",
    "HMAC with the public key": hmac_over_the_public_key(),
    "another algorithm's name": f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{BODY}.{SIGNATURE}",
    "no algorithm": f"{part({'typ': 'JWT'})}.{BODY}.{SIGNATURE}",
    "another key": signed(CLAIMS, ANOTHER),
    "another key, given in the header": signed(
        CLAIMS, ANOTHER, jwk={"kty": "OKP", "crv": "Ed25519", "x": "AA"}
    ),
    "another key, by kid": signed(CLAIMS, ANOTHER, kid="../../dev/null"),
    "subject changed": f"{HEAD}.{part({**CLAIMS, 'sub': 'other'})}.{SIGNATURE}",
    "expiry changed": f"{HEAD}.{part({**CLAIMS, 'exp': int(NOW + 9e6)})}.{SIGNATURE}",
    "audience changed": f"{HEAD}.{part({**CLAIMS, 'aud': USER_AUDIENCE})}.{SIGNATURE}",
    "binding added": f"{HEAD}.{part({**CLAIMS, 'cnf': {'curve': KEY}})}.{SIGNATURE}",
    "no signature": f"{HEAD}.{BODY}.",
    "signature cut": GOOD[:-4],
    "signature of zeros": f"{HEAD}.{BODY}.{part(bytes(64))}",
    "signature of another token": f"{HEAD}.{BODY}.{signed(without('jti')).split('.')[2]}",
    "header changed": f"{part({'alg': 'EdDSA', 'crit': ['x'], 'x': 1})}.{BODY}.{SIGNATURE}",
    "four parts": f"{GOOD}.{SIGNATURE}",
    "two parts": f"{HEAD}.{BODY}",
    "no JSON": f"{HEAD}.{part(b'not json')}.{SIGNATURE}",
    "an array": f"{HEAD}.{part([1, 2])}.{SIGNATURE}",
    "audience as a list": signed({**CLAIMS, "aud": [NODE_AUDIENCE, USER_AUDIENCE]}),
    "issuer of another": signed({**CLAIMS, "iss": fingerprint(STRANGER)}),
    "key of another": signed({**CLAIMS, "mgr": STRANGER}),
    "all of another": signed({**CLAIMS, "mgr": STRANGER, "iss": fingerprint(STRANGER)}),
    "expired": signed({**CLAIMS, "exp": int(NOW - LEEWAY - 1)}),
    "expiry as text": signed({**CLAIMS, "exp": "9999999999"}),
    "never expires": signed({**CLAIMS, "exp": None}),
    "of the future": signed({**CLAIMS, "iat": int(NOW + 3600)}),
    "endless": GOOD + "A" * 10_000,
    "deep claims": f"{HEAD}.{part(json.dumps(CLAIMS)[:-1].encode() + DEEP)}.{SIGNATURE}",
    "deep header": f"{part(DEEP_HEAD)}.{BODY}.{SIGNATURE}",
    **{f"without {claim}": signed(without(claim)) for claim in CLAIMS},
}


def test_the_token_that_the_forgeries_are_made_of_is_good() -> None:
    assert verify(GOOD).subject == "c"
    assert len(FORGED) >= 15


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_a_forged_token_is_refused(token: str) -> None:
    no = refusal(token)
    assert no.code in (Code.TOKEN_MALFORMED, Code.TOKEN_FOREIGN, Code.TOKEN_EXPIRED)


@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda b: f"{HEAD}.{part(b)}.x"))
def test_whatever_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(UnreadableToken):
        peek(text)
    assert refusal(text).code in (Code.TOKEN_MISSING, Code.TOKEN_MALFORMED)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABab01-_"))
def test_no_character_of_a_token_may_change(position: int, character: str) -> None:
    changed = GOOD[:position] + character + GOOD[position + 1 :]
    head, _, signature = changed.rpartition(".")
    if head == GOOD.rpartition(".")[0] and base64.urlsafe_b64decode(
        signature + "=="
    ) == base64.urlsafe_b64decode(SIGNATURE + "=="):
        return  # the last character has bits that mean nothing
    assert refusal(changed).code in (Code.TOKEN_MALFORMED, Code.TOKEN_FOREIGN)


def test_a_token_is_stored_by_its_hash() -> None:
    assert digest_of("0" * 32) != "0" * 32
    assert len(digest_of("0" * 32)) == 64
