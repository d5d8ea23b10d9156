"""msgspec decoders, each made once, safely while other threads run.

msgspec builds its description of a type when the first decoder of that type is made; a second
thread that makes one meanwhile gets a half-built description, and the process crashes (seen with
0.22). So decoders are made one at a time. Any thread may use them.
"""

from __future__ import annotations

import threading
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

MALFORMED = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
"""What a decoder raises of bytes that are nothing of its type: of text that is not UTF-8 it is a
UnicodeDecodeError, and of deep nesting a RecursionError."""

_making = threading.Lock()
_msgpack: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
_json: dict[Any, msgspec.json.Decoder[Any]] = {}


def msgpack_decoder(of: Any) -> msgspec.msgpack.Decoder[Any]:
    """Decodes and validates a type, or one of a closed union."""
    found = _msgpack.get(of)
    if found is None:
        with _making:
            found = _msgpack.setdefault(of, msgspec.msgpack.Decoder(of))
    return found


def json_decoder(of: type[T]) -> msgspec.json.Decoder[T]:
    """Decodes and validates a type."""
    found = _json.get(of)
    if found is None:
        with _making:
            found = _json.setdefault(of, msgspec.json.Decoder(of))
    return found


def convert(value: Any, to: type[T]) -> T:
    """Validate what was read from another format. Raises msgspec.ValidationError."""
    json_decoder(to)  # builds the description of the type
    return msgspec.convert(value, to)
