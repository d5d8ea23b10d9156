"""What users and strangers write into a message has a bound of its own, beside that of messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect

from manta.protocol import enrolment, user
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
