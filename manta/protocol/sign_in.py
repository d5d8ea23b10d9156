"""Messages about identity: how a key becomes a user's, and ceases to be."""

from __future__ import annotations

from typing import Any

from manta.protocol.base import Message, Ok, requests


class SignIn(Message, frozen=True):
    """From any key, which becomes the user's until it is revoked."""

    email: str
    password: str


class Bind(Message, frozen=True):
    """From any key, to which the first use binds the user's token."""

    token: str


class SignedIn(Message, frozen=True):
    user_id: str
    email: str
    token: str
    bulk_address: str


class WhoAmI(Message, frozen=True):
    pass


class RotateToken(Message, frozen=True):
    """Replaces the token. A later use of the old one revokes all that followed from it: one of
    the two who hold them is a thief."""


class Logout(Message, frozen=True):
    """Revokes this key and its token; with `everywhere`, all of the user's."""

    everywhere: bool = False


SignInRequest: Any = requests(
    {
        SignIn: SignedIn,
        Bind: SignedIn,
        WhoAmI: SignedIn,
        RotateToken: SignedIn,
        Logout: Ok,
    }
)
