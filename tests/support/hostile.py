"""A manager that names everything as an attacker would, and a check of what a command prints."""

from __future__ import annotations

import base64
import re
import types
import unicodedata
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
import msgspec

from manta.apis.sync import connection
from manta.protocol.sign_in import SignedIn
from manta.protocol.tokens import USER_AUDIENCE, TokenClaims, fingerprint
from manta.protocol.user import FeedPage, GlobalTags, ReadFeed
from manta.protocol.values import Digest, Inline
from manta.transports.codec.values import encode
from manta.transports.security.keys import KeyPair

MARK = "m4rk"
"""In everything that is hostile, to see that it is shown at all."""
EVIL = (
    f"\x1b]0;{MARK}\x07\x1b[2J\x1b[31m\nError: forged\rnode-1 worker.0 | forged\x1b[8m"
    "\u202e\u2066\u200e\u061c\u2028\u2029\x85\x9b1A\x7f\u200b\ufeff\x00\x08\u0301\U000e0041"
)
EVIL_KEY = "\x1b[31m~!" + "k" * 33
"""Forty characters, as a manager's key in a token that nobody has verified."""
_SEEN = {"L", "M", "N", "P", "S"}


KEY = KeyPair.generate().public


def token(key: str = KEY) -> str:
    claims = TokenClaims(fingerprint(key), EVIL, USER_AUDIENCE, 4e9, 0.0, EVIL, key)
    middle = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
    return f"e30.{middle}.e30"


STATES = {
    ("QuotaInfo", "name"): "clusters",
    ("SwarmInfo", "status"): "FAILED",
    ("TaskInfo", "status"): "FAILED",
    ("EventItem", "kind"): "failed",
    ("EventItem", "iteration"): 0,
    ("SignedIn", "token"): token(),
    ("UserToken", "token"): token(),
    ("Verdict", "accepted"): False,
    ("Planned", "blob"): None,
    ("ModuleSpec", "version"): "1.0.0",
    ("ModuleSpec", "package"): None,
    ("MissingBlobs", "blobs"): (),
}
"""Fields that decide whether the others are shown."""


IDS = {"id", "swarm_id", "cluster_id", "node_id", "user_id"}


def answer(kind: Any, text: str = EVIL, id_: str = EVIL) -> Any:
    """Returns a value of a type, with every text in it hostile."""
    if kind == Digest:
        return "0" * 64
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    inside = get_args(kind)
    if get_origin(kind) is Literal:
        return inside[0]
    if get_origin(kind) in (Union, types.UnionType):
        if Inline in inside:
            value = {text: [text, 1.5]}
            return Inline(b"".join(map(bytes, encode(value).parts())))
        return answer(next(one for one in inside if one is not type(None)), text, id_)
    if get_origin(kind) is tuple:
        parts = inside[:1] if inside[-1] is ... else inside
        return tuple(answer(part, text, id_) for part in parts)
    if get_origin(kind) is dict:
        return {answer(inside[0], text, id_): answer(inside[1], text, id_)}
    if kind in (str, Any):
        return text
    if kind is bytes:
        return text.encode()
    if kind in (int, float, bool):
        return kind(1)
    hints = get_type_hints(kind, include_extras=True)
    fields = {}
    for name in kind.__struct_fields__:
        fixed = STATES.get((kind.__name__, name), ...)
        own = id_ if name in IDS else text
        fields[name] = answer(hints[name], own, id_) if fixed is ... else fixed
    if "more" in fields:
        fields["more"] = False
    return kind(**fields)


def asked(message: Any, reply: Any, text: str, id_: str) -> Any:
    """What that manager answers."""
    if isinstance(message, ReadFeed):
        items = {feed: answer(kind, text, id_) for kind, feed in connection.FEEDS.items()}
        swarm = answer(get_type_hints(FeedPage)["swarm"], text, id_)
        return FeedPage((items[message.feed],), message.after + 1, True, swarm)
    return answer(reply, text, id_)


class Manager:
    """In place of the connection of each UserAPI: names everything `text`, or refuses."""

    def __init__(self, monkeypatch: Any) -> None:
        self.text = EVIL
        self.id = "1d"
        """The SDK takes no thing further whose id is no name."""
        self.tags: tuple[str, ...] = ()
        self.refusal: Exception | None = None
        monkeypatch.setattr(connection.Connection, "who", lambda _: answer(SignedIn))
        monkeypatch.setattr(connection.Connection, "_ask", self._ask)

    def _ask(self, message: Any, reply: Any, **_: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        if reply is GlobalTags and self.tags:
            return GlobalTags(self.tags)
        return asked(message, reply, self.text, self.id)


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields every command, as it is typed."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from leaves(below, (*path, name))
    else:
        yield " ".join(path)


def assert_harmless(printed: bytes, *, terminal: bool = False) -> None:
    """Whatever was printed, nothing acts on the terminal and no line is forged.

    On a `terminal`, our own colours and redraws are there.
    """
    text = printed.decode("utf-8")
    if terminal:
        text = re.sub(r"\x1b\[(?:(?:0|1|2|31|32|33|36)m|\d+F\x1b\[J|\?7[lh])", "", text)
        text = text.replace("\r\n", "\n")
    harmful = {
        character
        for character in text
        if unicodedata.category(character)[0] not in _SEEN and character not in " \n"
    }
    assert harmful == set(), text
    for line in text.splitlines():
        assert not line.startswith(("Error: forged", "node-1 worker.0 | forged")), text
    assert MARK not in text or "\\x1b" in text or "\\u001b" in text, text
