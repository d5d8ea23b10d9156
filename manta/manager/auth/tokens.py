"""Tokens: JWTs with EdDSA, which only this manager signs and verifies.

The audience tells their kind. A node token enrols up to `uses` nodes into the cluster that is
its subject. A user token makes the key that presents it a key of its subject, a user; a bound
token names that key (`cnf`) and works with no other. Issuer and `mgr` are the manager's CURVE
key, so that a token pins its server. How often a token was used and to which key it was bound
is stored in a `TokenRecord`.

PyJWT and cryptography are imported when the first signature is made or verified.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import TYPE_CHECKING, Any

from manta.actors.errors import Refused
from manta.protocol.codes import Code
from manta.protocol.tokens import (
    NODE_AUDIENCE,
    USER_AUDIENCE,
    TokenClaims,
    UnreadableToken,
    fingerprint,
    peek,
)
from manta.transports.codec.decoders import MALFORMED

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "EdDSA"
LEEWAY = 30.0
"""Seconds that the clocks of two machines may differ."""
MAX_NODE_TTL = 86_400.0
USER_TTL = 90 * 86_400.0
_REQUIRED = ["iss", "sub", "aud", "exp", "iat", "jti", "mgr"]
_WHOSE = {NODE_AUDIENCE: "a node's", USER_AUDIENCE: "a user's"}


def new_seed() -> bytes:
    """A new signing key."""
    return secrets.token_bytes(32)


def digest_of(token_id: str) -> str:
    """The key of a token's record. Its id has 128 random bits, so no salt is needed."""
    return hashlib.sha256(token_id.encode()).hexdigest()


class TokenAuthority:
    """Signs and verifies with one key. May be used from any thread."""

    def __init__(self, seed: bytes, manager_key: str) -> None:
        self._seed = seed
        self._manager_key = manager_key
        self._issuer = fingerprint(manager_key)

    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(self._seed)

    def issue(
        self,
        audience: str,
        subject: str,
        *,
        now: float,
        ttl: float,
        bound_to: str = "",
        uses: int | None = None,
    ) -> tuple[str, TokenClaims]:
        import jwt

        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": subject,
            "aud": audience,
            "iat": int(now),
            "exp": int(now + ttl),
            "jti": secrets.token_hex(16),
            "mgr": self._manager_key,
        }
        if bound_to:
            claims["cnf"] = {"curve": bound_to}
        if uses is not None:
            claims["uses"] = uses
        token = jwt.encode(claims, self._key(), algorithm=ALGORITHM)
        return token, peek(token)

    def verify(
        self, token: str, audience: str, *, presented_by: str | None, now: float
    ) -> TokenClaims:
        """Raises Refused, with a different code for each fault.

        `presented_by` is a key; None leaves it to the caller to compare that.
        """
        try:
            claims = peek(token)
        except UnreadableToken as error:
            raise Refused(error.code, str(error)) from error
        if claims.issuer != self._issuer:
            raise Refused(
                Code.TOKEN_FOREIGN,
                f"This token is for the manager {claims.issuer}, this one is {self._issuer}; "
                "connect to the manager that issued it, or get a token of this one.",
            )
        self._check_signature(token.strip())
        if claims.audience != audience:
            raise Refused(
                Code.TOKEN_AUDIENCE,
                f"This is {_WHOSE.get(claims.audience, 'another')} token, not "
                f"{_WHOSE[audience]}; "
                + (
                    "create one with `manta node token`."
                    if audience == NODE_AUDIENCE
                    else "sign in, or use the token that was issued to the user."
                ),
            )
        # A user's token expires together with what its key may do, to the second.
        if claims.expires_at + (0 if audience == USER_AUDIENCE else LEEWAY) <= now:
            raise Refused(
                Code.TOKEN_EXPIRED,
                f"This token expired {_ago(now - claims.expires_at)} ago; "
                + (
                    "get a new one with `manta node token CLUSTER`."
                    if audience == NODE_AUDIENCE
                    else "sign in again (manta sign-in)."
                ),
            )
        if claims.issued_at > now + LEEWAY:
            raise Refused(
                Code.TOKEN_MALFORMED,
                f"This token was issued {_ago(claims.issued_at - now)} in the future; "
                "set the manager's clock, then get a new one.",
            )
        if claims.bound_to and presented_by not in (None, claims.bound_to):
            raise bound_elsewhere()
        return claims

    def _check_signature(self, token: str) -> None:
        import jwt

        # The caller checks times and audience and has a sentence for each.
        unchecked = ("exp", "iat", "nbf", "aud", "iss", "sub", "jti")
        options: Any = {"require": _REQUIRED, **{f"verify_{claim}": False for claim in unchecked}}
        try:
            jwt.decode(token, self._key().public_key(), algorithms=[ALGORITHM], options=options)
        except (jwt.PyJWTError, *MALFORMED) as error:  # a header may be anything
            raise Refused(
                Code.TOKEN_FOREIGN,
                "This token was not signed by this manager, or was changed since; get a new one.",
            ) from error


def bound_elsewhere() -> Refused:
    return Refused(
        Code.TOKEN_KEY,
        "This token is bound to another key and works only where it was first used; "
        "get one for this machine.",
    )


def _ago(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
