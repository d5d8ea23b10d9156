"""The manager's two listeners, and which keys they and the bulk listener admit."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manta.actors import Actor, Reply
from manta.manager.auth.principals import Kind
from manta.manager.context import Context
from manta.protocol.paths import GATEWAY
from manta.transports.interface import Link, Listener
from manta.transports.security.admission import Admission

FAREWELL = 0.3
"""Seconds that a client has to receive the answer to its own sign-out."""


class _Farewell(msgspec.Struct):
    key: str
    links: list[Link]
    sign_in: Reply | None = None
    """The last sign-in since, which may still be under way."""


class Listeners:
    """The actor passes what it receives to `handle` first."""

    def __init__(self, actor: Actor, context: Context) -> None:
        self._actor = actor
        self._context = context
        self._admissions: list[Admission] = []
        self._listeners: list[Listener] = []
        self._farewells: dict[str, _Farewell] = {}
        """Of the keys that have just signed out."""

    def open(self) -> None:
        """Starts listening."""
        context = self._context
        known = context.principals.keys()
        context.bulk_admission.replace_known(known)
        guests = [
            Admission(
                known,
                guests=True,
                limits=context.limits,
                tally=context.tally,
                owner_of=context.principals.owner_of,
            )
            for _ in range(2)
        ]
        self._admissions = [*guests, context.bulk_admission]
        self._listeners = [
            self._actor.system.listen(at.address, admission, fd=at.fd, published={GATEWAY})
            for at, admission in zip((context.nodes, context.users), guests, strict=True)
        ]

    def handle(self, message: object) -> bool:
        """Whether the message was for this part."""
        if not isinstance(message, _Farewell):
            return False
        if self._farewells.get(message.key) is not message:
            return True  # the key has signed out again since
        if message.sign_in is not None and not message.sign_in.done:
            self._actor.after(FAREWELL, message)
            return True
        del self._farewells[message.key]
        if self._context.principals.of(message.key).kind is Kind.GUEST:
            for link in message.links:
                link.close()
        return True

    def signs_in(self, key: str, reply: Reply) -> None:
        """A sign-in is under way: until it is answered, a farewell does not cut the key's links."""
        if farewell := self._farewells.get(key):
            farewell.sign_in = reply

    def admit(self, key: str) -> None:
        """The key now belongs to a user or node."""
        for admission in self._admissions:
            admission.allow(key)

    def withdraw(self, keys: Iterable[str], asked_by: str) -> None:
        """Forgets these keys: from here on none of their messages is handled, nor a poll answered.

        Their links are closed; those of the key that asked for it only after FAREWELL, so that
        it can receive the answer, and not if it signs in again by then. Links that it has opened
        since are a guest's, and stay.
        """
        for key in keys:
            self._context.principals.forget(key)
            if key == asked_by:
                links = [link for one in self._listeners for link in one.links(key)]
                self._farewells[key] = _Farewell(key, links)
                self._actor.after(FAREWELL, self._farewells[key])
                self._forget(key)
            else:
                self.cut(key)

    def cut(self, key: str) -> None:
        """Closes the key's links."""
        for listener in self._listeners:
            listener.cut(key)
        self._forget(key)  # `cut` also denies the key; as a guest it can be told why

    def _forget(self, key: str) -> None:
        for admission in self._admissions:
            admission.forget(key)
