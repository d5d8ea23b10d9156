"""What nodes and clients read from a token, without verifying it.

A token is a JWT that only the manager signs and verifies (`manta.manager.auth.tokens`). Its
holder needs from it only the manager's public key, which the connection pins, and what the
token is for.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Annotated

import msgspec

from manta.protocol.base import SECRET
from manta.protocol.codes import Code
from manta.transports.codec.decoders import MALFORMED

USER_AUDIENCE = "manta:user"
NODE_AUDIENCE = "manta:node"
MAX_TOKEN_LENGTH = 4096
TokenText = Annotated[str, msgspec.Meta(max_length=2 * MAX_TOKEN_LENGTH, extra=SECRET)]
"""A token as it was copied, perhaps with white space around it."""


class UnreadableToken(ValueError):
    """Not a token of a manager; `code` is the one of the refusal that it would get."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class Confirmation(msgspec.Struct, frozen=True):
    """RFC 7800: the key that the token's presenter must hold."""

    curve: str


_CLAIMS = {
    "issuer": "iss",
    "subject": "sub",
    "audience": "aud",
    "expires_at": "exp",
    "issued_at": "iat",
    "id": "jti",
    "manager_key": "mgr",
    "confirmation": "cnf",
    "uses": "uses",
}


class TokenClaims(msgspec.Struct, frozen=True, rename=_CLAIMS):
    """A node token's subject is its cluster, a user token's the user.

    Times are seconds since the epoch.
    """

    issuer: str
    subject: str
    audience: str
    expires_at: float
    issued_at: float
    id: str
    manager_key: Annotated[str, msgspec.Meta(min_length=40, max_length=40)]
    """The manager's CURVE public key, Z85."""
    confirmation: Confirmation | None = None
    uses: int | None = None
    """How many nodes a node token may enrol; the manager counts them."""

    @property
    def bound_to(self) -> str | None:
        """The only key that may use the token, if it was bound when it was issued."""
        return None if self.confirmation is None else self.confirmation.curve


_decoder = msgspec.json.Decoder(TokenClaims)


def fingerprint(public_key: str) -> str:
    """The manager's name in its tokens, short enough to compare by eye."""
    return hashlib.sha256(public_key.encode()).hexdigest()[:32]


def peek(token: str) -> TokenClaims:
    """The claims, unverified. Raises UnreadableToken."""
    token = token.strip()
    if not token:
        raise UnreadableToken(
            Code.TOKEN_MISSING,
            "No token was given; pass one, or set it in MANTA_TOKEN or in the profile.",
        )
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN_LENGTH:
        raise _malformed("it does not consist of three parts")
    try:
        claims = _decoder.decode(decode_part(parts[1]))
    except MALFORMED as error:
        raise _malformed(f"its claims cannot be read ({error})") from error
    if claims.issuer != fingerprint(claims.manager_key):
        raise _malformed("its issuer is not the manager whose key it carries")
    return claims


def decode_part(part: str) -> bytes:
    """Base64url without padding."""
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _malformed(why: str) -> UnreadableToken:
    return UnreadableToken(
        Code.TOKEN_MALFORMED,
        f"This is not a Manta token: {why}; copy it again, whole and on one line.",
    )
