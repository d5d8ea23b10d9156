"""Who asks: how a key becomes a user's, and ceases to be."""

from __future__ import annotations

from typing import Any

from manta.protocol.base import Message, Ok, requests


class SignIn(Message, frozen=True):
    """From any key: on success the key is the user's until it is revoked."""

    email: str
    password: str


class Bind(Message, frozen=True):
    """From any key: a user's token, bound to this key at its first use."""

    token: str


class SignedIn(Message, frozen=True):
    user_id: str
    email: str
    token: str
    bulk_address: str


class WhoAmI(Message, frozen=True):
    pass


class RotateToken(Message, frozen=True):
    """A new token takes the old one's place. Whoever shows the old one afterwards revokes the
    whole family: it was stolen, or its owner is."""


class Logout(Message, frozen=True):
    """This key and its token are worth nothing from now on; `everywhere`: all of the user's."""

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
