"""What users and strangers write into a message has a bound of its own, beside that of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from manta.protocol import enrolment, node, user
from manta.protocol.sign_in import Bind, SignIn
from manta.protocol.users import AddUser, ChangePassword
from manta.protocol.values import BlobRef
from manta.transports.codec.decoders import msgpack_decoder

FROM_STRANGERS = (enrolment.Enroll, enrolment.ExamineToken, enrolment.Inquire)
LARGE = {"CheckSwarm.spec", "SendSwarm.spec", "SendModule.spec", "UpdateModule.spec"}
"""What a message is there to carry."""
SAID_BEFORE = {"ReadFeed.told"}
"""What a client sends back as it was told."""


def unbounded(type_: inspect.Type, path: str) -> Iterator[str]:
    match type_:
        case inspect.StrType(max_length=None):
            yield path
        case inspect.UnionType(types=types):
            for one in types:
                yield from unbounded(one, path)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            if type_.max_length is None:
                yield path
            yield from unbounded(item, path)


@pytest.mark.parametrize("message", [*get_args(user.FromUser), *FROM_STRANGERS])
def test_each_text_and_list_of_a_request_has_a_bound(message: Any) -> None:
    info = msgspec.inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    found = {
        path
        for field in info.fields
        for path in unbounded(field.type, f"{message.__name__}.{field.name}")
    }
    assert found - LARGE - SAID_BEFORE == set()


def endless(type_: inspect.Type, path: str) -> Iterator[str]:
    """Numbers that may be of any size, in what is no record of its own."""
    match type_:
        case inspect.IntType(ge=None, gt=None) | inspect.IntType(le=None, lt=None):
            yield path
        case inspect.UnionType(types=types):
            for one in types:
                yield from endless(one, path)
        case inspect.VarTupleType(item_type=item) | inspect.ListType(item_type=item):
            yield from endless(item, path)
        case inspect.DictType(value_type=value):
            yield from endless(value, path)


@pytest.mark.parametrize("message", [*get_args(node.FromNode), *get_args(user.FromUser)])
def test_each_number_of_a_request_has_bounds(message: Any) -> None:
    """What counts in machine words, as a database does, fails beyond them."""
    info = msgspec.inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    fields = ((field.type, f"{message.__name__}.{field.name}") for field in info.fields)
    assert [path for type_, name in fields for path in endless(type_, name)] == []


@pytest.mark.parametrize("number", [-2, 2**53 + 1, 2**64 - 1])
def test_a_number_beyond_them_is_not_decoded(number: int) -> None:
    for asked in (node.SelectResults("s", "t", 0, number), node.FetchDesired(number)):
        with pytest.raises(msgspec.ValidationError, match=r"`int` (>=|<=)"):
            msgpack_decoder(node.FromNode).decode(msgspec.msgpack.encode(asked))


@pytest.mark.parametrize(
    "message",
    [
        SignIn("a" * 201, "password"),
        SignIn("a@b", "p" * 1025),
        AddUser("a" * 201, "password"),
        ChangePassword("old", "p" * 1025),
        Bind("t" * 9000),
        user.FindMissingBlobs((BlobRef("0" * 64, 1),) * 2001),
    ],
)
def test_what_is_longer_is_not_decoded(message: Any) -> None:
    with pytest.raises(msgspec.ValidationError, match="of length <="):
        msgpack_decoder(user.FromUser).decode(msgspec.msgpack.encode(message))
