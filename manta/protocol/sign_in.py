"""Messages about identity: how a key becomes a user's, and ceases to be."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from manta.protocol.base import SECRET, Message, Named, Ok, Password, Seconds, requests
from manta.protocol.tokens import TokenText


class SignIn(Message, frozen=True):
    """From any key, which becomes the user's until it is revoked."""

    email: Annotated[Named, msgspec.Meta(extra=SECRET)]
    """Somebody may have typed a password in its place."""
    password: Password


class Bind(Message, frozen=True):
    """From any key, to which the first use binds the user's token."""

    token: TokenText


class SignedIn(Message, frozen=True):
    user_id: str
    email: str
    token: str
    bulk_address: str


class WhoAmI(Message, frozen=True):
    pass


class CreateUserToken(Message, frozen=True):
    """Makes a token of the sender for another machine: for the key `for_key`, or for the first key
    that shows it, within a day."""

    for_key: Named = ""


class UserToken(Message, frozen=True):
    token: str
    expires_at: Seconds


class RotateToken(Message, frozen=True):
    """Replaces the token. If another key shows the old one later, all that followed from it is
    revoked: one of the two who hold them is a thief."""


class Logout(Message, frozen=True):
    """Revokes this key and its token; with `everywhere`, all of the user's."""

    everywhere: bool = False


SignInRequest: Any = requests(
    {
        SignIn: SignedIn,
        Bind: SignedIn,
        WhoAmI: SignedIn,
        CreateUserToken: UserToken,
        RotateToken: SignedIn,
        Logout: Ok,
    }
)
